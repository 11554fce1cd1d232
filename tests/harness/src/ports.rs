//! Ports for members and proxies: theirs until the test is over, also while nobody listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rand::Rng;

use crate::Error;

/// Below those that Linux gives to whoever asks for any, which are 32,768 and up: clients come and go while a member is
/// down.
const NUMBERS: Range<u16> = 20_000..32_000;

/// The loopback ports that a test has taken. Nobody else who asks here, in this process or another, is given one of them
/// before this is dropped: a member that is down must find its own free when it comes back.
///
/// UDP and TCP count their ports apart. One that a member listens on with one of them is held by a socket of the other.
#[derive(Debug)]
pub struct Ports {
    among: Range<u16>,
    /// Sockets that hold them by being open.
    held: Mutex<Vec<OwnedFd>>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { among: NUMBERS, held: Mutex::default() }
    }
}

impl Ports {
    /// An address that a member or a proxy listens on with UDP.
    ///
    /// # Errors
    /// When all are taken.
    pub fn udp(&self) -> Result<SocketAddr, Error> {
        self.take(|address| {
            let held = TcpListener::bind(address)?;
            UdpSocket::bind(address)?;
            Ok(held.into())
        })
    }

    /// An address that a member listens on with TCP.
    ///
    /// # Errors
    /// When all are taken.
    pub fn tcp(&self) -> Result<SocketAddr, Error> {
        self.take(|address| {
            let held = UdpSocket::bind(address)?;
            TcpListener::bind(address)?;
            Ok(held.into())
        })
    }

    fn take(&self, hold: impl Fn(SocketAddr) -> std::io::Result<OwnedFd>) -> Result<SocketAddr, Error> {
        let middle = rand::rng().random_range(self.among.clone());
        for number in (middle..self.among.end).chain(self.among.start..middle) {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
            if let Ok(socket) = hold(address) {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
                return Ok(address);
            }
        }
        Err(format!("no port of {:?} is free", self.among).into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    /// Numbers that no other test asks for.
    fn few() -> Ports {
        Ports { among: 19_990..19_994, held: Mutex::default() }
    }

    #[test]
    fn a_port_is_its_takers_while_nobody_listens_on_it() {
        let (ann, ben) = (few(), few());
        let taken: BTreeSet<SocketAddr> =
            [ann.udp(), ben.tcp(), ann.udp(), ben.udp()].into_iter().map(Result::unwrap).collect();
        assert_eq!(taken.len(), 4);
        for result in [ann.udp(), ann.tcp()] {
            assert_eq!(result.unwrap_err().to_string(), "no port of 19990..19994 is free");
        }
        // Who took it can listen on it, again and again.
        let cid = few();
        drop(ben);
        let address = cid.udp().unwrap();
        for _ in 0..2 {
            drop(UdpSocket::bind(address).unwrap());
        }
        drop(TcpListener::bind(cid.tcp().unwrap()).unwrap());
    }
}
