//! What is measured, row by row.

/// A line of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Idle,
    W1Tag,
    W2Digest,
    W3SmallBlobs,
    W4LargeBlob,
    W5ColdShaped,
    W5ColdPlain,
    W6HerdShaped,
    W6HerdPlain,
    W7Ranges,
    W8PullsColdShaped,
    W8PullsColdPlain,
    W8PullsWarm,
    W9Few,
    W9Many,
    W10Dropped,
    W10InMemory,
    W11Filled,
    W11Asked,
    W12Warm,
    W12Cold,
}

impl Row {
    pub(crate) const ALL: [Self; 21] = [
        Self::Idle,
        Self::W1Tag,
        Self::W2Digest,
        Self::W3SmallBlobs,
        Self::W4LargeBlob,
        Self::W5ColdShaped,
        Self::W5ColdPlain,
        Self::W6HerdShaped,
        Self::W6HerdPlain,
        Self::W7Ranges,
        Self::W8PullsColdShaped,
        Self::W8PullsColdPlain,
        Self::W8PullsWarm,
        Self::W9Few,
        Self::W9Many,
        Self::W10Dropped,
        Self::W10InMemory,
        Self::W11Filled,
        Self::W11Asked,
        Self::W12Warm,
        Self::W12Cold,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::W1Tag => "W1 manifest by tag, 32 connections",
            Self::W2Digest => "W2 manifest by digest, 32 connections",
            Self::W3SmallBlobs => "W3 64 KiB blobs, warm, 32 connections",
            Self::W4LargeBlob => "W4 256 MiB blob, warm, 4 connections",
            Self::W5ColdShaped => "W5 256 MiB blob, cold, upstream 20 ms and 100 MB/s",
            Self::W5ColdPlain => "W5 256 MiB blob, cold, upstream not slowed",
            Self::W6HerdShaped => "W6 64 clients, one cold 64 MiB blob, upstream 20 ms and 100 MB/s",
            Self::W6HerdPlain => "W6 64 clients, one cold 64 MiB blob, upstream not slowed",
            Self::W7Ranges => "W7 32 KiB ranges of a warm blob, 32 connections",
            Self::W8PullsColdShaped => "W8 eight cold pulls at once, upstream 20 ms and 100 MB/s",
            Self::W8PullsColdPlain => "W8 eight cold pulls at once, upstream not slowed",
            Self::W8PullsWarm => "W8 eight warm pulls at once",
            Self::W9Few => "W9 2 KiB blobs, a store with few",
            Self::W9Many => "W9 2 KiB blobs, a store with many",
            Self::W10Dropped => "W10 256 MiB blob with its pages dropped, 4 connections, a manifest beside it",
            Self::W10InMemory => "W10 the same, pages in memory",
            Self::W11Filled => "W11 2 KiB blobs, cold, 16 connections, one upstream or three",
            Self::W11Asked => "W11 manifest by tag, asked upstream every time, 16 connections, one upstream or three",
            Self::W12Warm => "W12 256 MiB blob, warm, 4 connections, with a bucket behind the directory or without",
            Self::W12Cold => "W12 256 MiB blob from a bucket, with an empty directory before it or straight",
        }
    }
}

impl Row {
    /// What its table shows; the JSON file has everything.
    pub(crate) fn columns(self) -> &'static [Metric] {
        use Metric as M;
        match self {
            Self::Idle => &[M::ResidentMib, M::StartMs],
            Self::W1Tag => {
                &[M::RequestsPerSecond, M::P50Ms, M::P99Ms, M::CpuMicrosPerRequest, M::PeakMib, M::UpstreamHeads]
            }
            Self::W2Digest | Self::W3SmallBlobs | Self::W7Ranges => {
                &[M::RequestsPerSecond, M::P50Ms, M::P99Ms, M::CpuMicrosPerRequest, M::PeakMib]
            }
            Self::W4LargeBlob | Self::W12Warm => &[M::MegabytesPerSecond, M::CpuSecondsPerGigabyte, M::PeakMib],
            Self::W5ColdShaped | Self::W5ColdPlain => &[
                M::TotalSeconds,
                M::FirstByteP50Ms,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamBlobs,
                M::UpstreamBytesRatio,
            ],
            Self::W12Cold => {
                &[M::TotalSeconds, M::FirstByteP50Ms, M::CpuSecondsPerGigabyte, M::PeakMib, M::UpstreamBlobs]
            }
            Self::W6HerdShaped | Self::W6HerdPlain => &[
                M::TotalSeconds,
                M::FirstByteP50Ms,
                M::FirstByteMaxMs,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamBlobs,
                M::UpstreamBytesRatio,
                M::Failures,
            ],
            Self::W8PullsColdShaped | Self::W8PullsColdPlain => &[
                M::TotalSeconds,
                M::P50Ms,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::UpstreamManifests,
                M::UpstreamBlobs,
                M::UpstreamRequests,
                M::UpstreamBytesRatio,
            ],
            Self::W8PullsWarm => &[M::PullsPerSecond, M::P50Ms, M::P99Ms, M::CpuSecondsPerGigabyte, M::PeakMib],
            Self::W9Few | Self::W9Many => &[
                M::Blobs,
                M::FilledPerSecond,
                M::FillCpuMicrosPerBlob,
                M::StoredLate,
                M::UpstreamGetsPerBlob,
                M::FilesPerBlob,
                M::TagP99Ms,
                M::RequestsPerSecond,
                M::P99Ms,
                M::RestartMs,
                M::RestartKilledMs,
                M::ResidentMib,
                M::ResidentAfterRestartMib,
                M::MemoryPerBlobBytes,
                M::MemoryPerBlobAfterRestartBytes,
            ],
            Self::W10Dropped | Self::W10InMemory => &[
                M::MegabytesPerSecond,
                M::BesideP50Ms,
                M::BesideP99Ms,
                M::DiskRatio,
                M::CpuSecondsPerGigabyte,
                M::PeakMib,
                M::Failures,
            ],
            Self::W11Filled | Self::W11Asked => &[
                M::RequestsPerSecond,
                M::P50Ms,
                M::P99Ms,
                M::CpuMicrosPerRequest,
                M::UpstreamPerAnswer,
                M::UpstreamFurther,
                M::Failures,
            ],
        }
    }
}

/// What is measured. The unit is in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    Blobs,
    FilledPerSecond,
    FillCpuMicrosPerBlob,
    RequestsPerSecond,
    MegabytesPerSecond,
    PullsPerSecond,
    TotalSeconds,
    FirstByteP50Ms,
    FirstByteMaxMs,
    P50Ms,
    P99Ms,
    MaxMs,
    TagP99Ms,
    BesideP50Ms,
    BesideP99Ms,
    DiskRatio,
    CpuMicrosPerRequest,
    CpuSecondsPerGigabyte,
    PeakMib,
    ResidentMib,
    ResidentAfterRestartMib,
    MemoryPerBlobBytes,
    MemoryPerBlobAfterRestartBytes,
    StartMs,
    RestartMs,
    RestartKilledMs,
    FilesPerBlob,
    StoredLate,
    UpstreamGetsPerBlob,
    UpstreamHeads,
    UpstreamManifests,
    UpstreamBlobs,
    UpstreamRequests,
    UpstreamBytesRatio,
    UpstreamPerAnswer,
    UpstreamFurther,
    Failures,
    VerifyErrors,
}

impl Metric {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::FilledPerSecond => "filled blobs/s",
            Self::FillCpuMicrosPerBlob => "fill CPU µs/blob",
            Self::RequestsPerSecond => "requests/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::PullsPerSecond => "pulls/s",
            Self::TotalSeconds => "total s",
            Self::FirstByteP50Ms => "first byte p50 ms",
            Self::FirstByteMaxMs => "first byte max ms",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::MaxMs => "max ms",
            Self::TagP99Ms => "manifest p99 ms",
            Self::BesideP50Ms => "manifest beside it p50 ms",
            Self::BesideP99Ms => "manifest beside it p99 ms",
            Self::DiskRatio => "from disk ×",
            Self::CpuMicrosPerRequest => "CPU µs/request",
            Self::CpuSecondsPerGigabyte => "CPU s/GB",
            Self::PeakMib => "peak RSS MiB",
            Self::ResidentMib => "RSS MiB",
            Self::ResidentAfterRestartMib => "RSS after restart and reading all MiB",
            Self::MemoryPerBlobBytes => "memory/blob B",
            Self::MemoryPerBlobAfterRestartBytes => "the same after restart B",
            Self::StartMs => "start to ready ms",
            Self::RestartMs => "restart to ready ms",
            Self::RestartKilledMs => "kill -9 and restart to ready ms",
            Self::FilesPerBlob => "files/blob",
            Self::StoredLate => "stored late",
            Self::UpstreamGetsPerBlob => "upstream requests/blob",
            Self::UpstreamHeads => "upstream manifest HEADs",
            Self::UpstreamManifests => "upstream manifest requests",
            Self::UpstreamBlobs => "upstream blob requests",
            Self::UpstreamRequests => "upstream requests",
            Self::UpstreamBytesRatio => "upstream bytes ×",
            Self::UpstreamPerAnswer => "upstream requests/request",
            Self::UpstreamFurther => "to the second and third",
            Self::Failures => "failed",
            Self::VerifyErrors => "verify errors",
        }
    }

    /// Digits after the point in tables.
    pub(crate) fn digits(self) -> usize {
        match self {
            Self::TotalSeconds
            | Self::P50Ms
            | Self::P99Ms
            | Self::MaxMs
            | Self::TagP99Ms
            | Self::BesideP50Ms
            | Self::BesideP99Ms
            | Self::DiskRatio
            | Self::FilesPerBlob
            | Self::UpstreamGetsPerBlob
            | Self::UpstreamPerAnswer => 2,
            Self::CpuSecondsPerGigabyte | Self::UpstreamBytesRatio => 3,
            Self::FirstByteP50Ms
            | Self::FirstByteMaxMs
            | Self::CpuMicrosPerRequest
            | Self::PeakMib
            | Self::ResidentMib
            | Self::ResidentAfterRestartMib
            | Self::PullsPerSecond => 1,
            _ => 0,
        }
    }

    /// Whether a ratio to nginx-static says something.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::RequestsPerSecond | Self::MegabytesPerSecond | Self::PullsPerSecond)
    }
}
