//! The UDP sockets: every shard has one for each address, and all of an address share one port.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

/// Room for bursts, in bytes; the kernel gives what `net.core.rmem_max` and `wmem_max` allow.
const BUFFER: usize = 4 << 20;

/// An address the relay listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address of an interface. Not a wildcard: an answer must leave from the address that was asked.
    pub bind: IpAddr,
    /// The address viewers are told, where it is not the same (one-to-one NAT).
    pub advertise: Option<IpAddr>,
}

impl Listen {
    /// The address viewers are told, with a port.
    pub(super) fn advertised(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.advertise.unwrap_or(self.bind), port)
    }
}

/// One socket of a shard and the address viewers know it by.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub socket: UdpSocket,
    pub advertised: SocketAddr,
}

/// A shard's sockets.
#[derive(Debug)]
pub(super) struct Sockets(pub Vec<Endpoint>);

impl Sockets {
    /// Sends a datagram from one of the advertised addresses. False when it could not be sent: UDP has no second try.
    pub fn send(&self, source: SocketAddr, destination: SocketAddr, bytes: &[u8]) -> bool {
        let endpoint = self.0.iter().find(|endpoint| endpoint.advertised == source);
        endpoint.is_some_and(|endpoint| endpoint.socket.send_to(bytes, destination).is_ok())
    }
}

/// Binds the sockets of all shards. Port 0 takes a free port, the same for all addresses.
///
/// # Errors
/// Those of `bind(2)`, such as an address in use.
pub(super) fn bind(listen: &[Listen], port: u16, shards: usize) -> io::Result<(u16, Vec<Sockets>)> {
    let mut port = port;
    let mut all: Vec<Sockets> = (0..shards).map(|_| Sockets(vec![])).collect();
    for address in listen {
        // SO_REUSEPORT would let two servers of one user share a port unseen, so a plain bind looks first
        let probe = open(SocketAddr::new(address.bind, port), false)?;
        port = probe.local_addr()?.as_socket().map_or(port, |address| address.port());
        drop(probe);
        for sockets in &mut all {
            let socket = open(SocketAddr::new(address.bind, port), shards > 1)?;
            let socket = UdpSocket::from_std(socket.into());
            sockets.0.push(Endpoint { socket, advertised: address.advertised(port) });
        }
    }
    Ok((port, all))
}

fn open(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    for (what, result) in
        [("receive", socket.set_recv_buffer_size(BUFFER)), ("send", socket.set_send_buffer_size(BUFFER))]
    {
        if let Err(error) = result {
            tracing::debug!(%error, what, "cannot size a socket's buffer");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
