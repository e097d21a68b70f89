//! Code that the targets share.

use std::{env, fs, path::PathBuf};

/// Writes a target's seeds into the folder that `RPC_FUZZ_SEEDS` names, before libFuzzer reads it.
pub fn write_seeds(name: &str) {
    let Some(folder) = env::var_os("RPC_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for target in rpc_core::__fuzz::TARGETS.iter().filter(|target| target.name == name) {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).expect("the corpus can be written");
        }
    }
}
