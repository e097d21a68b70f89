//! Fuzz targets: functions that take any bytes, and panic when they find a bug.
//!
//! They are compiled for unit tests, which run their seeds and mutations of them, and with `--cfg fuzzing` for libFuzzer
//! (`tests/fuzz`). Other builds do not contain them.

#[cfg(feature = "framework")]
pub use crate::codec::fuzz::{bodies, body_seeds};
pub use crate::{
    broker::fuzz::{connection_seeds, connections},
    routing::fuzz::{topic_seeds, topics},
    wire::fuzz::{frame_seeds, frames, table_seeds, tables},
};

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct FuzzTarget {
    /// Its file in `tests/fuzz/fuzz_targets`.
    pub name: &'static str,
    /// Panics when it finds a bug.
    pub run: fn(&[u8]),
    /// The first inputs of its corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "frames", run: frames, seeds: frame_seeds },
    FuzzTarget { name: "tables", run: tables, seeds: table_seeds },
    FuzzTarget { name: "connections", run: connections, seeds: connection_seeds },
    FuzzTarget { name: "topics", run: topics, seeds: topic_seeds },
    #[cfg(feature = "framework")]
    FuzzTarget { name: "bodies", run: bodies, seeds: body_seeds },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every seed as it is, cut off anywhere, and with random bytes in random places. A failure prints what failed.
    fn smoke(target: FuzzTarget) {
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        for seed in (target.seeds)() {
            run(target, &seed);
            for end in 0..seed.len() {
                run(target, &seed[..end]);
            }
            for _ in 0..MUTATIONS {
                let mut mutated = seed.clone();
                for _ in 0..=next(4) {
                    let at = next(mutated.len());
                    match next(3) {
                        0 => mutated[at] = next(256) as u8,
                        1 => mutated[at] ^= 1 << next(8),
                        _ => mutated.insert(at, next(256) as u8),
                    }
                }
                run(target, &mutated);
            }
        }
    }

    fn run(target: FuzzTarget, data: &[u8]) {
        if std::panic::catch_unwind(|| (target.run)(data)).is_err() {
            panic!("{} fails on {data:?}", target.name);
        }
    }

    const MUTATIONS: usize = 300;

    #[test]
    fn frames_hold_on_seeds_and_their_mutations() {
        smoke(TARGETS[0]);
    }

    #[test]
    fn tables_hold_on_seeds_and_their_mutations() {
        smoke(TARGETS[1]);
    }

    #[test]
    fn connections_hold_on_seeds_and_their_mutations() {
        smoke(TARGETS[2]);
    }

    #[test]
    fn topics_hold_on_seeds_and_their_mutations() {
        smoke(TARGETS[3]);
    }

    #[cfg(feature = "framework")]
    #[test]
    fn bodies_hold_on_seeds_and_their_mutations() {
        smoke(TARGETS[4]);
    }
}
