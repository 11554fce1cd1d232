//! A client that speaks frames by hand: for what the real one would never send, or never leave unread.

use conclave_link::{Connection, Credentials, Dialer, FrameReader, FrameWriter, Plane, RecvStream, SendStream};
use conclave_protocol::{ClientMessage, Hello, PROTOCOL_VERSION, ServerMessage, Zxid, codec, limits};

use crate::{Cluster, Error, PATIENCE};

/// One connection with its ordered stream.
pub struct Raw {
    /// To the member.
    pub writer: FrameWriter<SendStream>,
    reader: FrameReader<RecvStream>,
    _connection: Connection,
}

impl Raw {
    /// Connects to a member, with a certificate of this name.
    ///
    /// # Errors
    /// When the member does not take it.
    pub async fn connect(cluster: &Cluster, member: u64, name: &str) -> Result<Self, Error> {
        let credentials = Credentials::load_dir(&cluster.pki().client(name)?)?;
        let dialer = Dialer::new(&credentials, Plane::Client)?;
        let connection = dialer.connect(cluster.config(member).listen.client, None).await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Self { writer: FrameWriter::new(send), reader: FrameReader::new(receive), _connection: connection })
    }

    /// Says hello, without a session, and takes the welcome.
    ///
    /// # Errors
    /// When there is none.
    pub async fn hello(&mut self) -> Result<(), Error> {
        let hello = Hello { versions: vec![PROTOCOL_VERSION], attach: None, seen: Zxid(0), cluster: None };
        self.send(&ClientMessage::Hello(hello)).await?;
        match self.receive().await? {
            Some(ServerMessage::Welcome(_)) => Ok(()),
            other => Err(format!("no welcome: {other:?}").into()),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn send(&mut self, message: &ClientMessage) -> Result<(), Error> {
        self.writer.push(&codec::encode(message))?;
        Ok(self.writer.flush().await?)
    }

    /// The next message; none at the end of the stream.
    ///
    /// # Errors
    /// When the stream breaks, or nothing comes.
    pub async fn receive(&mut self) -> Result<Option<ServerMessage>, Error> {
        let frame = tokio::time::timeout(PATIENCE, self.reader.next(4 * limits::FRAME_BYTES)).await??;
        Ok(frame.map(|frame| codec::decode(&frame)).transpose()?)
    }
}
