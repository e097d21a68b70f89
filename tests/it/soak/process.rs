//! The resources of this process: memory, threads, tasks.

use std::{fmt, fs, time::Duration};

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) tasks: usize,
    pub(super) threads: usize,
}

pub(super) fn tasks_and_threads() -> Held {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // Where there is no /proc, only tasks are compared.
    let threads = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    Held { tasks, threads }
}

/// The resident memory over a run, as the mean of each quarter.
#[derive(Debug)]
pub(super) struct Memory {
    begin: Instant,
    length: Duration,
    /// Sum in kB and number of looks, by quarter.
    quarters: [(u64, u64); 4],
}

impl Memory {
    pub(super) fn new(begin: Instant, length: Duration) -> Self {
        Self { begin, length, quarters: [(0, 0); 4] }
    }

    pub(super) fn look(&mut self) {
        let Some(kb) = resident_kb().filter(|_| Instant::now() >= self.begin) else { return };
        let part = self.begin.elapsed().as_secs_f64() / self.length.as_secs_f64();
        let (sum, looks) = &mut self.quarters[((part * 4.0) as usize).min(3)];
        *sum += kb;
        *looks += 1;
    }

    fn mean_mb(&self, quarter: usize) -> f64 {
        let (sum, looks) = self.quarters[quarter];
        sum as f64 / looks.max(1) as f64 / 1024.0
    }

    /// The last quarter over the second.
    pub(super) fn growth(&self) -> f64 {
        let second = self.mean_mb(1);
        if second == 0.0 { 1.0 } else { self.mean_mb(3) / second }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = [0, 1, 2, 3].map(|quarter| self.mean_mb(quarter));
        write!(f, "resident MB by quarter: {a:.1}, {b:.1}, {c:.1}, {d:.1} (last over second: {:.3})", self.growth())
    }
}

fn resident_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
