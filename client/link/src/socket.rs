//! The UDP sockets under the endpoints, with buffers that hold a burst.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use rustix::net::sockopt;

/// Opens a UDP socket with buffers of `buffer` bytes, or as near as the system allows.
pub(crate) fn open(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    // The forced form passes net.core.rmem_max where the process may (CAP_NET_ADMIN); the plain one is clamped.
    if sockopt::set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, buffer).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, buffer)?;
    }
    Ok(socket)
}

/// Says so when the system granted a listener less than it asked for.
pub(crate) fn warn_if_clamped(socket: &UdpSocket, wanted: usize) {
    let granted = |read: rustix::io::Result<usize>| read.map_or(0, |bytes| bytes / 2); // twice the grant: socket(7)
    let receive = granted(sockopt::socket_recv_buffer_size(socket));
    let send = granted(sockopt::socket_send_buffer_size(socket));
    if receive < wanted || send < wanted {
        tracing::warn!(
            wanted,
            receive,
            send,
            "UDP socket buffers are clamped: many clients at once will lose packets; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
}
