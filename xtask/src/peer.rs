// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other end of a machine's network connections: a TCP server on this computer, which QEMU's user network shows to the
//! machine at 10.0.2.2.
//!
//! The first byte of a connection says what is wanted: `E` sends everything back, `D` takes everything and answers its
//! length, `S` sends as many bytes as the next eight bytes say (both numbers little-endian).

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

/// Starts the server; it lives as long as this program. Returns its port.
pub(crate) fn start() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever connects learns of a failure by the connection's end.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut wanted = [0];
    stream.read_exact(&mut wanted)?;
    let mut buffer = vec![0; 64 << 10];
    match wanted[0] {
        b'E' => loop {
            match stream.read(&mut buffer)? {
                0 => break,
                length => stream.write_all(&buffer[..length])?,
            }
        },
        b'D' => {
            let mut total = 0_u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    length => total += length as u64,
                }
            }
            stream.write_all(&total.to_le_bytes())?;
        }
        b'S' => {
            let mut length = [0; 8];
            stream.read_exact(&mut length)?;
            let mut left = u64::from_le_bytes(length);
            while left > 0 {
                let part = buffer.len().min(usize::try_from(left)?);
                stream.write_all(&buffer[..part])?;
                left -= part as u64;
            }
        }
        _ => {}
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8]) -> Vec<u8> {
        let port = start().expect("loopback has free ports");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
        stream.write_all(request).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("the connection stands");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server ends the connection");
        answer
    }

    #[test]
    fn each_service_answers() {
        assert_eq!(answer(b"Ehello"), b"hello");
        assert_eq!(answer(b"Dhello"), 5_u64.to_le_bytes());
        assert_eq!(answer(b"S\x03\0\0\0\0\0\0\0").len(), 3);
    }
}
