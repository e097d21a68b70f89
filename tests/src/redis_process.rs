//! A Redis server of a test's own.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{eventually, signal};

/// A running `redis-server`, which keeps its data in memory; killed when dropped.
#[derive(Debug)]
pub struct RedisProcess {
    program: PathBuf,
    port: u16,
    child: Child,
}

impl RedisProcess {
    /// Starts the program that `RPC_TEST_REDIS_SERVER` names, Redis or Valkey, on a port of its own; `None`, and a line that says so, when
    /// there is none.
    ///
    /// # Panics
    /// When it does not listen within 20 s.
    pub async fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("RPC_TEST_REDIS_SERVER") else {
            println!("skipped: RPC_TEST_REDIS_SERVER is not set");
            return None;
        };
        let program = PathBuf::from(program);
        for _ in 0..3 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            let port = free.expect("there is a free port").port();
            let mut redis = Self { child: spawn(&program, port), program: program.clone(), port };
            // Somebody else may have taken the port meanwhile.
            if redis.listens().await {
                return Some(redis);
            }
        }
        panic!("{} does not start", program.display());
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends it with SIGKILL; its data are lost.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was running");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not listen within 20 s.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.program, self.port);
        assert!(self.listens().await, "{} does not start again", self.program.display());
    }

    /// Freezes it, with SIGSTOP: its sockets stay open.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Whether it lives and listens.
    async fn listens(&mut self) -> bool {
        let mut lives = true;
        eventually(Duration::from_secs(20), "Redis listens, or ends", async || {
            lives = self.child.try_wait().expect("it is ours").is_none();
            !lives || TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
        lives
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(program: &PathBuf, port: u16) -> Child {
    Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts")
}
