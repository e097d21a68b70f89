//! The processes of a measurement: this program again, with another command.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{Result, callgrind};

/// A process that says one line when it is ready, and ends when its stdin does.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program with other arguments, under valgrind when `profile` names a file for its counts.
    pub(crate) fn start(arguments: &[&str], profile: Option<&Path>) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match profile {
            None => Command::new(program),
            Some(profile) => callgrind::command(&program, profile),
        };
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a child without pipes".into());
        };
        Ok(Self { child, stdin: Some(stdin), stdout: BufReader::new(stdout) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("a process of the measurement ended: {}", self.child.wait()?).into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        std::io::copy(&mut self.stdout, &mut std::io::sink())?;
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("a process of the measurement failed: {status}").into()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already reaped after `stop`; otherwise an error is being reported and must not leave processes behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Resolves when whoever started this process closes its stdin.
pub(crate) async fn stdin_closed() -> Result<()> {
    // A thread, not tokio's stdin: the runtime under test must not be woken for it.
    let (sender, closed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        drop(std::io::stdin().read_to_end(&mut rest));
        sender.send(()).ok();
    });
    Ok(closed.await?)
}

/// The CPU time a process has used, all its threads together.
pub(crate) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Fields 14 and 15 of proc(5), counted after the command's name, which may hold anything but ends with the last ')'.
    let (_, fields) = stat.rsplit_once(')').ok_or("unreadable /proc/<pid>/stat")?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * MILLISECONDS_PER_TICK))
}

/// `USER_HZ` is 100 wherever Linux runs Rust's tier 1 targets.
const MILLISECONDS_PER_TICK: u64 = 10;
