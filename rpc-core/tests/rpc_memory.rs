//! The memory of the program `rpc broker`, from outside.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const MESSAGES: usize = 100_000;
const BODY_BYTES: usize = 1_500;
const LIMIT: Duration = Duration::from_secs(10);

/// A running `rpc broker`, killed when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have stopped already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Program {
    fn resident_mib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1_024
    }
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, channel];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

/// The kind and the payload of the next frame.
fn read(stream: &mut BufReader<TcpStream>) -> (u8, Vec<u8>) {
    let mut header = [0; 7];
    stream.read_exact(&mut header).unwrap();
    let mut payload = vec![0; u32::from_be_bytes(header[3..].try_into().unwrap()) as usize + 1];
    stream.read_exact(&mut payload).unwrap();
    payload.pop();
    (header[0], payload)
}

/// A client with an open channel and queue `q`.
fn connect(address: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    let handshake = [
        b"AMQP\0\0\x09\x01".to_vec(),
        frame(1, 0, b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US"),
        frame(1, 0, b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\0"),
        frame(1, 0, b"\0\x0a\0\x28\x01/\0\0"),
        frame(1, 1, b"\0\x14\0\x0a\0"),
        declare(),
    ];
    stream.write_all(&handshake.concat()).unwrap();
    let mut stream = BufReader::new(stream);
    while !read(&mut stream).1.starts_with(b"\0\x32\0\x0b") {}
    stream
}

fn declare() -> Vec<u8> {
    frame(1, 1, b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\0")
}

fn message() -> Vec<u8> {
    let header = [&b"\0\x3c\0\0"[..], &(BODY_BYTES as u64).to_be_bytes(), b"\0\0"].concat();
    [frame(1, 1, b"\0\x3c\0\x28\0\0\0\x01q\0"), frame(2, 1, &header), frame(3, 1, &[b'x'; BODY_BYTES])].concat()
}

#[test]
fn memory_goes_back_to_the_system_after_a_burst() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rpc"))
        .args(["--log", "warn", "broker", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let program = Program(child);
    let mut client = connect(line.trim().strip_prefix("listening on amqp://").unwrap());
    let before = program.resident_mib();
    let many = message().repeat(100);
    for _ in 0..MESSAGES / 100 {
        client.get_mut().write_all(&many).unwrap();
    }
    client.get_mut().write_all(&declare()).unwrap();
    while !read(&mut client).1.starts_with(b"\0\x32\0\x0b") {}
    let full = program.resident_mib();
    assert!(full > before + 150, "{full} MiB hold no messages");
    // `basic.consume`, with no_ack.
    client.get_mut().write_all(&frame(1, 1, b"\0\x3c\0\x14\0\0\x01q\x01t\x02\0\0\0\0")).unwrap();
    let mut bodies = 0;
    while bodies < MESSAGES {
        bodies += usize::from(read(&mut client).0 == 3);
    }
    let emptied = Instant::now();
    while program.resident_mib() > before + 64 {
        let now = program.resident_mib();
        assert!(emptied.elapsed() < LIMIT, "{before} MiB before, {full} MiB full, still {now} MiB");
        sleep(Duration::from_millis(50));
    }
    println!("{before} MiB, {full} MiB full, {} MiB {:?} later", program.resident_mib(), emptied.elapsed());
}
