//! Upstreams that are probed, taken out by an operator, or carried over a reload.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_upstream_that_comes_back_is_found_by_a_probe_and_proved_by_requests() {
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) =
        watched(vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    let up = || metrics.health.up.with_label_values(&["registry.test", "first"]).get();
    assert_eq!((circuits(&health)[0], up()), (Circuit::Open, 0));
    first.answers(200);
    pass(6 * SECOND).await;
    assert_eq!((circuits(&health)[0], up(), first.probes()), (Circuit::HalfOpen, 1, 1));
    for _ in 0..2 {
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    }
    assert_eq!(circuits(&health)[0], Circuit::Closed);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_front_page_that_works_does_not_bring_back_what_does_not() {
    let facade = Fake::start(|asked| if asked.target == "/v2/" { ok("{}") } else { status(500) }).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("facade", &facade.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    for _ in 0..600 {
        assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
        pass(SECOND).await;
    }
    // Five to open, then one each time, with waits of 5 to 300 seconds between.
    let asked = facade.asked().iter().filter(|asked| asked.target != "/v2/").count();
    assert!((10..=16).contains(&asked), "{asked}");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_front_page_out_of_order_keeps_no_request_away() {
    let odd = Fake::start(|asked| if asked.target == "/v2/" { status(500) } else { ok(MANIFEST) }).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, metrics) = watched(vec![mirror("odd", &odd.url()), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    ask(&set, Purpose::Miss).await.unwrap();
    pass(Duration::from_secs(50 * 60)).await;
    assert_eq!(circuits(&health)[0], Circuit::Closed);
    assert_eq!(metrics.health.up.with_label_values(&["registry.test", "odd"]).get(), 0);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "odd");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn who_is_idle_is_probed_for_an_hour_and_who_is_never_asked_is_not() {
    let (used, unused) = (Moody::start(200).await, Moody::start(200).await);
    let (_all, set, health, _) =
        watched(vec![upstream("used", &used.server.url()), upstream("unused", &unused.server.url())]);
    let probing = probe(&health);
    pass(Duration::from_secs(600)).await;
    assert_eq!((used.probes(), unused.probes()), (0, 0));
    for _ in 0..30 {
        ask(&set, Purpose::Miss).await.unwrap();
        pass(20 * SECOND).await;
    }
    assert_eq!(used.probes(), 0, "traffic proves as much");
    pass(Duration::from_secs(3 * 60 * 60)).await;
    assert!((95..=150).contains(&used.probes()), "{}", used.probes());
    assert_eq!(unused.probes(), 0);
    let last = used.probes();
    pass(Duration::from_secs(3 * 60 * 60)).await;
    assert_eq!(used.probes(), last);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn who_stops_answering_while_idle_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // A connection that is kept would outlive the server.
    let server = Fake::on(listener, |_| reply(200, &[("connection", "close")], MANIFEST));
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let (_all, set, health, _) = watched(vec![mirror("first", &url), upstream("spare", &spare.url())]);
    let probing = probe(&health);
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "first");
    let port = server.port;
    drop(server);
    // Its port is taken by somebody who says nothing.
    tokio::task::yield_now().await;
    let silent = crate::upstream::tests::fake::listen_on(port).await;
    pass(Duration::from_secs(120)).await;
    let report = &health.reports()[0];
    assert_eq!((circuit(report, Part::Api), circuit(report, Part::Blob)), (Circuit::Open, Circuit::Open));
    let begun = Instant::now();
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert_eq!(begun.elapsed().as_secs(), 0);
    drop(silent);
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disabled_upstream_is_asked_nothing_until_its_time_is_up() {
    let (first, spare) = (Moody::start(200).await, Moody::start(200).await);
    let configured = vec![mirror("first", &first.server.url()), upstream("spare", &spare.server.url())];
    let (all, set, health, metrics) = watched(configured.clone());
    let probing = probe(&health);
    let host = "registry.test".parse().unwrap();
    ask(&set, Purpose::Miss).await.unwrap();
    let gauge = || metrics.health.disabled.with_label_values(&["registry.test", "first"]).get();
    health.disable(&host, "first", Instant::now() + Duration::from_secs(3600)).unwrap();
    let asked = first.count();
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("spare".to_owned(), 1));
    // Another configuration changes nothing about that, even one of this upstream.
    let changed = UpstreamConfig { allow_private: false, ..configured[0].clone() };
    let renewed = all.renewed(&[registry(vec![changed, configured[1].clone()])], &metrics).unwrap();
    renewed.enter_into_force();
    let set = Arc::clone(renewed.of(&host).unwrap());
    assert_eq!(ask(&set, Purpose::Miss).await.unwrap(), "spare");
    assert!(health.reports()[0].disabled_for.unwrap() > Duration::from_secs(3590));
    spare.answers(503);
    let told = ask(&set, Purpose::Miss).await.unwrap_err();
    assert_eq!(told.0[0].error.verdict, Verdict::Disabled);
    assert!(told.to_string().starts_with("first: Is disabled by the operator for another 3600 s; spare: "), "{told}");
    assert_eq!((first.count(), first.probes()), (asked, 0));

    pass(Duration::from_secs(3601)).await;
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("first".to_owned(), 0));
    health.disable(&host, "first", Instant::now() + Duration::from_secs(3600)).unwrap();
    health.enable(&host, "first").unwrap();
    assert_eq!((ask(&set, Purpose::Miss).await.unwrap(), gauge()), ("first".to_owned(), 0));
    let unknown = health.disable(&host, "fist", Instant::now()).unwrap_err().to_string();
    assert_eq!(unknown, "Registry `registry.test` has no upstream `fist`: it has `first`, `spare`");
    let unknown = health.enable(&"other.test".parse().unwrap(), "first").unwrap_err().to_string();
    assert_eq!(unknown, "Registry `other.test` has no upstream `first`: it has none");
    probing.abort();
}

#[tokio::test(start_paused = true)]
async fn health_outlives_a_reload_and_what_is_gone_has_no_metrics() {
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let configured = vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())];
    let (all, set, health, metrics) = watched(configured.clone());
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    let third = upstream("third", &spare.url());
    let more = all.renewed(&[registry([configured.clone(), vec![third]].concat())], &metrics).unwrap();
    more.enter_into_force();
    assert_eq!(circuits(&health), [Circuit::Open, Circuit::Closed, Circuit::Closed]);
    assert!(
        metrics
            .encode()
            .unwrap()
            .contains("weir_upstream_circuit_open{registry=\"registry.test\",surface=\"api\",upstream=\"first\"} 1")
    );
    let fewer = more.renewed(&[registry(configured[1..].to_vec())], &metrics).unwrap();
    fewer.enter_into_force();
    assert_eq!(health.reports().len(), 1);
    assert!(!metrics.encode().unwrap().contains("weir_upstream_circuit_open{"), "of `first` nothing is told");
}

#[tokio::test(start_paused = true)]
async fn of_an_upstream_that_changes_metrics_tell_how_the_new_one_is() {
    let first = Moody::start(503).await;
    let spare = Fake::start(|_| ok(MANIFEST)).await;
    let before = vec![mirror("first", &first.server.url()), upstream("spare", &spare.url())];
    let (all, old, _, metrics) = watched(before.clone());
    for _ in 0..5 {
        ask(&old, Purpose::Miss).await.unwrap();
    }
    let open = || metrics.encode().unwrap().contains("surface=\"api\",upstream=\"first\"} 1");
    let up = "weir_upstream_up{registry=\"registry.test\",upstream=\"first\"}";
    assert!(open() && metrics.encode().unwrap().contains(up));
    let changed = UpstreamConfig { max_connections: 7, ..before[0].clone() };
    let renewed = all.renewed(&[registry(vec![changed, before[1].clone()])], &metrics).unwrap();
    renewed.enter_into_force();
    assert!(!open() && !metrics.encode().unwrap().contains(up));
    // Whoever still asks the old one tells nobody how it is.
    first.answers(200);
    advance(Duration::from_secs(10)).await;
    for _ in 0..3 {
        assert_eq!(ask(&old, Purpose::Miss).await.unwrap(), "first");
    }
    assert!(!metrics.encode().unwrap().contains(up), "{}", metrics.encode().unwrap());
    let new = Arc::clone(renewed.of(&"registry.test".parse().unwrap()).unwrap());
    assert_eq!(ask(&new, Purpose::Miss).await.unwrap(), "first");
    assert!(metrics.encode().unwrap().contains(up));
    first.answers(503);
    for _ in 0..6 {
        assert_eq!(ask(&old, Purpose::Miss).await.unwrap(), "spare");
    }
    assert!(!open());
}

#[tokio::test(start_paused = true)]
async fn a_bad_certificate_opens_at_once() {
    let (plain, spare) = (Fake::start(|_| ok(MANIFEST)).await, Fake::start(|_| ok(MANIFEST)).await);
    let tls = plain.url().replace("http://", "https://");
    let (set, metrics) = set(vec![mirror("plain", &tls), upstream("spare", &spare.url())]);
    for _ in 0..10 {
        ask(&set, Purpose::Miss).await.unwrap();
        advance(2 * SECOND).await;
    }
    let asked = ["registry.test", "plain", "manifest", "tls"];
    assert_eq!(metrics.upstream.requests.with_label_values(&asked).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_of_an_upstream_ends_when_it_is_configured_otherwise() {
    let (before, after) = (Moody::start(503).await, Moody::start(200).await);
    let (all, set, health, metrics) = watched(vec![upstream("hub", &before.server.url())]);
    let host = "registry.test".parse().unwrap();
    let is_told = |name: &str| metrics.encode().unwrap().contains(&format!("\nweir_upstream_{name}{{"));
    for _ in 0..5 {
        ask(&set, Purpose::Miss).await.unwrap_err();
    }
    health.disable(&host, "hub", Instant::now() + SECOND).unwrap();
    health.enable(&host, "hub").unwrap();
    assert_eq!(["up", "circuit_open", "disabled"].map(is_told), [true, true, true]);
    let renewed = all.renewed(&[registry(vec![upstream("hub", &after.server.url())])], &metrics).unwrap();
    renewed.enter_into_force();
    assert_eq!(["up", "circuit_open", "disabled"].map(is_told), [false; 3], "nothing is known of it yet");
    // What was asked of the old one may end well, and says nothing about the new one.
    before.answers(200);
    for _ in 0..2 {
        ask(&set, Purpose::Miss).await.unwrap();
    }
    assert_eq!(["up", "circuit_open"].map(is_told), [false, false]);
    ask(renewed.of(&host).unwrap(), Purpose::Miss).await.unwrap();
    assert_eq!(["up", "circuit_open"].map(is_told), [true, false]);
}
