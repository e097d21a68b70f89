//! The cost of two hops over TCP without a broker: bytes from the first connection go out on the second one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{Result, processes::Process};

/// The `relay` command.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        while let (Ok((mut from, _)), Ok((mut to, _))) = (listener.accept(), listener.accept()) {
            let mut buffer = vec![0; 256 * 1_024];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// A relay in a process of its own.
pub(crate) struct Relay {
    process: Process,
    address: SocketAddr,
}

impl Relay {
    pub(crate) fn start() -> Result<Self> {
        let mut process = Process::start(&["relay"], None)?;
        let address = process.line()?.parse()?;
        Ok(Self { process, address })
    }

    /// Both ends of a new pair.
    pub(crate) fn pair(&self) -> Result<(TcpStream, TcpStream)> {
        let from = TcpStream::connect(self.address)?;
        Ok((from, TcpStream::connect(self.address)?))
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.process.stop()
    }
}
