//! The brokers of a run: the bundled one in a process of its own, and another one when there is a URL.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    time::{Duration, Instant},
};

use rpc_core::broker::Broker;

use crate::{
    Result,
    processes::{self, Process, cpu_time},
};

/// A broker to measure.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The process that listens there.
    process_id: u32,
    /// Ours to stop.
    process: Option<Process>,
    /// From the start of the process to its open port.
    pub(crate) start: Option<Duration>,
}

impl Target {
    /// The bundled broker, started now; under callgrind when `profile` names a file.
    pub(crate) fn bundled(profile: Option<&Path>) -> Result<Self> {
        let began = Instant::now();
        let mut process = Process::start(&["broker"], profile)?;
        let address = process.line()?.parse()?;
        Ok(Self { address, process_id: process.id(), start: Some(began.elapsed()), process: Some(process) })
    }

    /// A broker of this machine that runs already.
    pub(crate) fn at(url: &str) -> Result<Self> {
        let host = url.trim_start_matches("amqp://");
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        let address = host.to_socket_addrs()?.find(SocketAddr::is_ipv4).ok_or("no address in the URL")?;
        Ok(Self { address, process_id: listener(address.port())?, process: None, start: None })
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.process_id)
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1_024.0)
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.process.map_or(Ok(()), Process::stop)
    }
}

/// The process of this machine that listens on a port.
fn listener(port: u16) -> Result<u32> {
    let wanted = format!(":{port:04X}");
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines() {
            let fields: Vec<_> = line.split_whitespace().collect();
            // Local address, state (0A listens), inode; proc(5).
            if fields.len() > 9 && fields[1].ends_with(&wanted) && fields[3] == "0A" {
                inodes.push(format!("socket:[{}]", fields[9]));
            }
        }
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(id) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let is_wanted = |link: std::path::PathBuf| inodes.iter().any(|inode| link == Path::new(inode));
            if fs::read_link(descriptor.path()).is_ok_and(is_wanted) {
                return Ok(id);
            }
        }
    }
    Err(format!("no process of this machine listens on port {port}").into())
}

/// The `broker` command.
pub(crate) fn serve() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let broker = Broker::start().await?;
        println!("{}", broker.address());
        processes::stdin_closed().await
    })
}
