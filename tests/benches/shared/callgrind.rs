//! The counts of callgrind: instructions and allocations of one process.

use std::{path::Path, process::Command};

use crate::Result;

/// The counts of one run, or their share of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

impl Counts {
    /// Reads callgrind's file: its `totals:` line, and how often the allocator's functions were called.
    pub(crate) fn read(profile: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(profile)?;
        let mut counts = Self { instructions: 0.0, allocations: 0.0 };
        let mut callee = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                if ALLOCATORS.contains(&callee) {
                    counts.allocations += calls.split(' ').next().unwrap_or_default().parse::<f64>()?;
                }
            } else if let Some(total) = line.strip_prefix("totals: ") {
                counts.instructions = total.split_whitespace().next().unwrap_or_default().parse()?;
            }
        }
        if counts.instructions == 0.0 || counts.allocations == 0.0 {
            return Err(format!("{} holds no counts", profile.display()).into());
        }
        Ok(counts)
    }

    /// One call's share of what the run with more calls cost above the one with fewer: start-up and shutdown fall out.
    pub(crate) fn per_call(fewer: Self, more: Self, calls: u64) -> Self {
        Self {
            instructions: (more.instructions - fewer.instructions) / calls as f64,
            allocations: (more.allocations - fewer.allocations) / calls as f64,
        }
    }
}

/// Allocating functions, as callgrind names them.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "memalign"];

/// `program` under callgrind, which writes its counts into `profile`.
pub(crate) fn command(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind", "--fair-sched=yes"])
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program);
    command
}
