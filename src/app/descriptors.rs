//! How many connections the process has file descriptors for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors per connection: its socket, the file it reads, and as many again for upstreams, spools and everything
/// else.
const PER_CONNECTION: u64 = 4;

/// Raises the limit of open files as far as it goes without privileges, and returns how many of the `wanted`
/// connections it allows for.
///
/// The usual soft limit of 1024 is there for programs that use `select`.
pub(crate) fn affordable_connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let descriptors = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "The limit of open files cannot be raised");
            limit.current
        }
    };
    let affordable = within(descriptors, wanted);
    if affordable < wanted {
        let configured = wanted;
        tracing::warn!(
            descriptors,
            configured,
            affordable,
            "Fewer connections than server.max_connections: raise the limit of open files (ulimit -n, LimitNOFILE=)"
        );
    }
    affordable
}

/// `None` descriptors: as many as there may be.
fn within(descriptors: Option<u64>, wanted: usize) -> usize {
    let affordable = descriptors.map_or(u64::MAX, |descriptors| descriptors / PER_CONNECTION);
    usize::try_from(affordable).map_or(wanted, |affordable| wanted.min(affordable.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_files_and_upstreams() {
        assert_eq!(within(Some(1024), 4096), 256);
        assert_eq!(within(Some(1_048_576), 4096), 4096);
        assert_eq!(within(Some(2), 4096), 1);
        assert_eq!(within(None, 4096), 4096);
    }
}
