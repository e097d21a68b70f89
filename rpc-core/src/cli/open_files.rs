//! The limit of open files: each connection takes one.

/// Raises the soft limit to the hard one. Returns it; `None` where the system has no such limit.
///
/// Many systems have a soft limit of 1 024 for old programs that use `select`, far below the hard one.
pub(super) fn raise_limit() -> Option<u64> {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => Some(limit),
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            None
        }
    }
}

/// The most connections within the limit of open files.
pub(super) fn connections_max(wanted: usize, open_files_max: Option<u64>) -> usize {
    let Some(limit) = open_files_max.and_then(|limit| usize::try_from(limit).ok()) else { return wanted };
    let possible = limit.saturating_sub(RESERVED_FILES).max(1);
    if possible < wanted {
        tracing::warn!(
            open_files_max = limit,
            connections_max = possible,
            "the limit of open files allows fewer connections"
        );
    }
    wanted.min(possible)
}

/// Files besides connections: standard streams, listening sockets, the runtime's.
const RESERVED_FILES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_files() {
        assert_eq!(connections_max(65_536, Some(20_000)), 19_968);
        assert_eq!(connections_max(100, Some(20_000)), 100);
        assert_eq!(connections_max(100, Some(10)), 1);
        assert_eq!(connections_max(100, None), 100);
    }
}
