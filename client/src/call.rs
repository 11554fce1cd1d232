//! Calls of plugins' procedures, parked ones too, and questions to their queries: arguments in, a value out.

mod args;

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use conclave_protocol::{Answer, Call as CallOp, Op, Path, Query, Value, codec};
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::{Read, Write, read_methods};
use crate::client::Client;
use crate::error::{Error, Result};
use args::Args;

/// Calls a plugin's procedure; made by [`Client::call`]. Gives what it returned: the bytes of one CBOR item, or with
/// [`Call::typed`] a value. See [`Client::call`] for what can go wrong and what becomes of a dropped call.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Call {
    plugin: String,
    procedure: String,
    args: Args,
    write: Write,
}

/// Methods that say what the arguments are; `args` is an [`Args`].
macro_rules! argument_methods {
    () => {
        /// An argument by its name. Texts are taken for what the parameter is: `"30s"` for a duration, `"5"` for an
        /// integer.
        pub fn arg(mut self, name: &str, value: impl Serialize) -> Self {
            self.args.name(name, value);
            self
        }

        /// All arguments: a struct or a map from their names to their values, or an array of positional ones.
        pub fn args(mut self, args: &impl Serialize) -> Self {
            self.args.all(args);
            self
        }

        /// The next positional argument. Texts are taken for what the parameter is.
        pub fn positional(mut self, value: impl Serialize) -> Self {
            self.args.next(value);
            self
        }

        /// The arguments as CBOR that was made elsewhere; no bytes are no arguments.
        pub fn raw_args(mut self, args: impl Into<Bytes>) -> Self {
            self.args = Args::Raw(args.into());
            self
        }
    };
}

impl Call {
    pub(crate) const fn new(client: Client, plugin: String, procedure: String) -> Self {
        Self { plugin, procedure, args: Args::None, write: Write::new(client) }
    }

    argument_methods!();

    /// The time that the call has, parked or not. When it is over the call is cancelled, and ends as
    /// [`Error::TimedOut`]: whatever it had taken is given back; or with what it returned, if that was sooner. Some
    /// seconds after, when there is no answer to that either, it ends as [`Error::Unknown`].
    ///
    /// Without it, a call that parks waits for as long as it takes; until it is known whether it parks it has the
    /// options' request timeout.
    pub fn within(mut self, time: Duration) -> Self {
        self.write.within = Some(time);
        self
    }

    /// Only while this fence holds; else it is refused with [`Refusal::Fenced`](crate::Refusal::Fenced).
    pub fn fenced(mut self, fence: impl Into<crate::Fence>) -> Self {
        self.write.fence = Some(fence.into());
        self
    }

    /// Through the client's session, which is opened if there is none: in order with its other writes. A call that parks
    /// opens it by itself.
    pub fn in_session(mut self) -> Self {
        self.write.in_session = true;
        self
    }

    /// Gives the reply as a value of this type.
    pub fn typed<T: DeserializeOwned>(self) -> TypedCall<T> {
        TypedCall { call: self, of: PhantomData }
    }
}

impl IntoFuture for Call {
    type Output = Result<Bytes>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { plugin, procedure, args, write } = self;
        Box::pin(async move {
            let op = Op::Call(CallOp { plugin, procedure, args: args.encode()?, root: Path::root() });
            match write.send(Ok(op)).await? {
                Value::Called(bytes) => Ok(bytes),
                _ => Err(Error::Mismatch { question: "call" }),
            }
        })
    }
}

/// A call whose reply is a value; made by [`Call::typed`]. Ends as [`Error::UndecodableReply`] when it is none: the call
/// was carried out all the same.
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedCall<T> {
    call: Call,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TypedCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCall").field("call", &self.call).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for TypedCall<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let what = format!("{} {}", self.call.plugin, self.call.procedure);
        Box::pin(async move { decode(what, &self.call.await?) })
    }
}

/// Asks a plugin's query; made by [`Client::ask`]. Gives what it returned: the bytes of one CBOR item, or with
/// [`Inquiry::typed`] a value.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Inquiry {
    plugin: String,
    query: String,
    args: Args,
    read: Read,
}

impl Inquiry {
    pub(crate) const fn new(client: Client, plugin: String, query: String) -> Self {
        Self { plugin, query, args: Args::None, read: Read::new(client) }
    }

    argument_methods!();

    read_methods!();

    /// Gives the answer as a value of this type.
    pub fn typed<T: DeserializeOwned>(self) -> TypedInquiry<T> {
        TypedInquiry { inquiry: self, of: PhantomData }
    }
}

impl IntoFuture for Inquiry {
    type Output = Result<Bytes>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { plugin, query, args, read } = self;
        Box::pin(async move {
            let call = CallOp { plugin, procedure: query, args: args.encode()?, root: Path::root() };
            match read.send(Query::Call(call)).await? {
                (_, Answer::Called(bytes)) => Ok(bytes),
                _ => Err(Error::Mismatch { question: "a plugin's query" }),
            }
        })
    }
}

/// A question whose answer is a value; made by [`Inquiry::typed`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TypedInquiry<T> {
    inquiry: Inquiry,
    of: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for TypedInquiry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedInquiry").field("inquiry", &self.inquiry).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for TypedInquiry<T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let what = format!("{} {}", self.inquiry.plugin, self.inquiry.query);
        Box::pin(async move { decode(what, &self.inquiry.await?) })
    }
}

/// The value that a reply is.
fn decode<T: DeserializeOwned>(what: String, reply: &Bytes) -> Result<T> {
    codec::decode(reply).map_err(|error| {
        // It is no message, as the codec says, but the plugin's.
        let why = error.to_string();
        let why = why.strip_prefix("not a message of this protocol: ").unwrap_or(&why).to_owned();
        Error::UndecodableReply { what, reply: reply.clone(), why }
    })
}
