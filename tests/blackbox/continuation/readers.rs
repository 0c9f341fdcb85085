//! Clients that share a download which breaks.

use super::*;

#[tokio::test(start_paused = true)]
async fn clients_that_have_nothing_yet_get_the_second_fetch() {
    // All of a small blob is held back until the verdict.
    let mut pull = Setup::of(2, 35).await;
    pull.blob = blob_of(60_000, 35);
    for upstream in &pull.upstreams {
        upstream.push_blob(REPOSITORY, &pull.blob);
    }
    pull.bend(1, [Fault::Flip(1000)]);
    let gate = pull.upstreams[0].hold(pull.gets(), 30_000);
    let clients = futures_util::future::join_all((0..5).map(|_| pull.pull()));
    let open = async {
        gate.reached().await;
        gate.open();
    };
    for answer in futures_util::future::join(clients, open).await.0 {
        answer.assert_is(pull.blob.digest());
    }
    pull.weir.assert_invariants().await;
    assert_eq!((pull.asked(1).len(), pull.asked(2).len()), (1, 1));
    assert_eq!(pull.blamed().await, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_end_gets_it_from_the_second_fetch() {
    let pull = Setup::of(2, 36).await;
    pull.bend(1, [Fault::Flip(MIB)]);
    let gate = pull.upstreams[0].hold(pull.gets(), 5 * MIB);
    let mut greedy = raw::get(pull.weir.address(), &pull.path()).await;
    greedy.read_exactly(4 * MIB).await;
    // It wants what is held back until the verdict.
    let patient = raw::get_from(pull.weir.address(), &pull.path(), SIZE - 60_000).await;
    gate.open();
    assert!(greedy.read_to_end().await.is_err());
    assert_eq!(patient.read_to_end().await, Ok((60_000, pull.blob.digest_of(SIZE - 60_000..SIZE))));
    pull.weir.assert_invariants().await;
    assert!(pull.weir.is_stored(pull.blob.digest()));
}

#[tokio::test(start_paused = true)]
async fn all_readers_are_carried_across_a_break() {
    let pull = Setup::of(2, 37).await;
    let gate = pull.upstreams[0].hold(pull.gets(), 5 * MIB);
    pull.bend(1, [Fault::CutAt(5 * MIB)]);
    let mut first = raw::get(pull.weir.address(), &pull.path()).await;
    assert_eq!(first.read_exactly(4 * MIB).await, pull.blob.bytes_of(0..4 * MIB));
    let middle = raw::get_from(pull.weir.address(), &pull.path(), 3 * MIB + 1).await;
    let end = raw::get_from(pull.weir.address(), &pull.path(), SIZE - 1).await;
    let others = futures_util::future::join_all((0..8).map(|_| pull.pull()));
    gate.open();
    for answer in others.await {
        answer.assert_is(pull.blob.digest());
    }
    assert_eq!(first.read_to_end().await, Ok((4 * MIB, pull.blob.digest_of(4 * MIB..SIZE))));
    assert_eq!(middle.read_to_end().await, Ok((5 * MIB - 1, pull.blob.digest_of(3 * MIB + 1..SIZE))));
    assert_eq!(end.read_to_end().await, Ok((1, pull.blob.digest_of(SIZE - 1..SIZE))));
    pull.weir.assert_invariants().await;
    pull.assert_each_byte_came_once(5 * MIB).await;
}

/// One blob in two repositories, each of which only one upstream has.
struct Shared {
    weir: TestWeir,
    blob: Blob,
    first: ScriptedUpstream,
    second: ScriptedUpstream,
}

impl Shared {
    const HERE: &str = "team/here";
    const THERE: &str = "team/there";

    async fn of(blob: Blob) -> Self {
        let (first, second) = (ScriptedUpstream::start().await, ScriptedUpstream::start().await);
        let weir = TestWeir::start(json!({ "registries": { REGISTRY: registry(&[&first, &second]) } })).await;
        first.push_blob(Self::HERE, &blob);
        second.push_blob(Self::THERE, &blob);
        Self { weir, blob, first, second }
    }

    /// A client here starts the download; one there, which follows it, has read so many bytes by the time the download
    /// breaks off for good. Returns how their answers end.
    async fn broken_at(&self, byte: u64, read: u64) -> [Result<u64, String>; 2] {
        let gets = Requests::blob(self.blob.digest()).get();
        let gate = self.first.hold(gets.clone(), byte);
        self.first.fault(gets, Fault::CutAt(byte));
        let here = raw::get(self.weir.address(), &blob_path(Self::HERE, self.blob.digest())).await;
        let mut there = raw::get(self.weir.address(), &blob_path(Self::THERE, self.blob.digest())).await;
        assert_eq!(self.second.blob_gets(self.blob.digest()), 0, "it follows");
        there.read_exactly(read).await;
        gate.open();
        let (here, there) = futures_util::future::join(here.read_to_end(), there.read_to_end()).await;
        if let Ok((_, rest)) = there {
            assert_eq!(rest, self.blob.digest_of(read..self.blob.size()));
        }
        self.weir.assert_invariants().await;
        [here.map(|(bytes, _)| bytes), there.map(|(bytes, _)| bytes)]
    }
}

#[tokio::test(start_paused = true)]
async fn a_download_that_broke_off_goes_on_at_the_upstreams_of_those_who_follow_it() {
    for (blob, byte, read) in [(blob_of(SIZE, 41), 5 * MIB, 4 * MIB), (blob_of(MIB, 42), 600_000, 500_000)] {
        let pull = Shared::of(blob).await;
        let size = pull.blob.size();
        assert_eq!(pull.broken_at(byte, read).await, [Ok(size), Ok(size - read)], "whoever began it");
        assert!(pull.weir.is_stored(pull.blob.digest()));
        let requests = pull.second.requests();
        let ranges =
            requests.iter().filter(|request| request.method == Method::GET && request.repository == Shared::THERE);
        assert_eq!(ranges.filter_map(|request| request.header(RANGE)).collect::<Vec<_>>(), [from(byte)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_never_given_what_does_not_belong_to_its_bytes() {
    for (blob, byte, read) in [(blob_of(SIZE, 43), 5 * MIB, 4 * MIB), (blob_of(MIB, 44), 600_000, 500_000)] {
        let pull = Shared::of(blob).await;
        pull.first.fault(Requests::blob(pull.blob.digest()).get(), Fault::Flip(1000));
        let [here, there] = pull.broken_at(byte, read).await;
        assert!(here.is_err() && there.is_err(), "{here:?}, {there:?}");
        // The other was asked alone, has proven itself, and does not pay for what the first had sent.
        pull.weir.blob(Shared::THERE, pull.blob.digest()).await.assert_is(pull.blob.digest());
        pull.weir.assert_invariants().await;
        assert!(pull.weir.is_stored(pull.blob.digest()));
        let second = [("registry", REGISTRY), ("upstream", "up-2")];
        assert_eq!(pull.weir.metric("weir_digest_mismatches_total", &second).await, 0);
    }
}

/// One download serves both registries, and neither client waits for the upstream of the other.
#[tokio::test(start_paused = true)]
async fn who_follows_a_download_that_is_stuck_brings_its_own_upstream_along() {
    let crawl = Fault::CrawlFrom(3 * MIB, 4 * 1024);
    for (seed, fault, seconds) in [(90, Fault::HoldAt(3 * MIB, Gate::new()), 30..=40), (91, crawl, 60..=190)] {
        let (stuck, well, blob) =
            (ScriptedUpstream::start().await, ScriptedUpstream::start().await, blob_of(SIZE, seed));
        stuck.push_blob(REPOSITORY, &blob);
        well.push_blob("team/other", &blob);
        stuck.fault(Requests::blob(blob.digest()).get(), fault.clone());
        let registries = json!({ REGISTRY: registry(&[&stuck]), "well.test": registry(&[&well]) });
        let weir = TestWeir::start(json!({ "registries": registries })).await;
        let mut first = raw::get(weir.address(), &blob_path(REPOSITORY, blob.digest())).await;
        let start = first.read_exactly(MIB).await;
        let begun = tokio::time::Instant::now();
        let path = format!("/v2/well.test/team/other/blobs/{}", blob.digest());
        weir.get(&path).await.assert_is(blob.digest());
        let took = begun.elapsed().as_secs();
        assert!(seconds.contains(&took), "{took} s");
        assert_eq!(start, blob.bytes_of(0..MIB));
        assert_eq!(first.read_to_end().await, Ok((SIZE - MIB, blob.digest_of(MIB..SIZE))));
        weir.assert_invariants().await;
        assert_eq!((stuck.blob_gets(blob.digest()), well.blob_gets(blob.digest())), (1, 1));
        assert!(weir.is_stored(blob.digest()));
        let labels = [("registry", "well.test"), ("upstream", "up-1")];
        assert_eq!(weir.metric("weir_upstream_resumes_total", &labels).await, 1);
    }
}
