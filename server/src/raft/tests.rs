//! Three members on real sockets.
