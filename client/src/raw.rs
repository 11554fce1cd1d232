//! Requests in the protocol's own words: for programs that pass on what others ask, such as shells and proxies.

use std::future::IntoFuture;

use conclave_protocol::{Answer, Consistency, Op, Query, Refusal, Value, Zxid};
use futures::future::BoxFuture;

use crate::builder::{Read, Write, read_methods, write_methods};
use crate::client::Client;
use crate::error::Result;

impl Client {
    /// Any write. Gives the zxid of its transaction, and what it gave. What needs a session opens it.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// use conclave_client::{CreateStep, Op, Path, Value};
    ///
    /// let op = Op::Create(CreateStep::new(Path::parse("/app")?, "v1"));
    /// let (zxid, value) = client.submit(op).await?;
    /// assert!(matches!(value, Value::Created { stat, .. } if stat.created == zxid));
    /// # Ok(()) }
    /// ```
    pub fn submit(&self, op: Op) -> Submit {
        Submit { op, write: Write::new(self.clone()) }
    }

    /// Any read. Gives the zxid of the state that it was read from, and the answer.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), conclave_testing::Error> {
    /// # let cluster = conclave_testing::Cluster::start(1).await?;
    /// # let client = cluster.client("me").await?;
    /// use conclave_client::{Answer, Path, Query};
    ///
    /// let query = Query::Exists { path: Path::parse("/app")? };
    /// let (zxid, answer) = client.query(query).linearizable().await?;
    /// println!("as of {zxid}");
    /// assert_eq!(answer, Answer::Exists(None));
    /// # Ok(()) }
    /// ```
    pub fn query(&self, query: Query) -> Question {
        Question { query, read: Read::new(self.clone()) }
    }
}

/// A write in the protocol's words; made by [`Client::submit`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Submit {
    op: Op,
    write: Write,
}

impl Submit {
    write_methods!();
}

impl IntoFuture for Submit {
    type Output = Result<(Zxid, Value)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let op = match self.op {
            Op::Close => Err(Refusal::BadRequest { why: "a client's session is closed with the client".to_owned() }),
            Op::Cancel { .. } => {
                Err(Refusal::BadRequest { why: "a client's call is cancelled by dropping its future".to_owned() })
            }
            op => Ok(op),
        };
        Box::pin(self.write.send_for_zxid(op))
    }
}

/// A read in the protocol's words; made by [`Client::query`].
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Question {
    query: Query,
    read: Read,
}

impl Question {
    read_methods!();

    /// So fresh.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.read.consistency = Some(consistency);
        self
    }
}

impl IntoFuture for Question {
    type Output = Result<(Zxid, Answer)>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.read.send(self.query).await })
    }
}
