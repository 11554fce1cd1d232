//! A checkpoint between two members on real sockets: judged before it is carried, and replaced where it is damaged.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use conclave_link::pki::{Authority, Spec, write_credentials};
use conclave_link::{Credentials, Dialer, Listener, Plane, Principal, TrustDomain};
use conclave_store::{Boot, DirLock, Options, Store};

use super::*;
use crate::peer::{Inlets, Peers, Stream, tuning};
use crate::raft::Node;

const CLUSTER: &str = "test";
const FAST: u64 = 1 << 30;

fn credentials(dir: &Path) -> [Credentials; 2] {
    let domain = TrustDomain::new("test").unwrap();
    let peer = Authority::create(&dir.join("ca"), Plane::Peer, &domain).unwrap();
    let client = Authority::create(&dir.join("ca"), Plane::Client, &domain).unwrap();
    [1, 2].map(|id| {
        let issued = peer.issue(&Spec::new(Principal::member(&domain, id).unwrap(), 1)).unwrap();
        let dir = dir.join(format!("tls{id}"));
        write_credentials(&dir, &issued, &peer, &client).unwrap();
        Credentials::load_dir(&dir).unwrap()
    })
}

/// Member 1, which receives, and member 2, which has a checkpoint.
struct Bench {
    receiver: Peers,
    sender: (Peers, Inlets),
    checkpoint: Checkpoint,
    /// Where they come to.
    here: Checkpoints,
    carried: Arc<Carried>,
    /// The ids of those that were to be replaced.
    replaced: Arc<Mutex<Vec<u128>>>,
    _dir: tempfile::TempDir,
}

fn start() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = BTreeMap::new();
    let [receiver, sender] = credentials(dir.path()).map(|credentials| {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::bind_with(free, Plane::Peer, &credentials, tuning()).unwrap();
        let peer = listener.local_address().unwrap().to_string();
        let id = credentials.principal().member_id().unwrap();
        nodes.insert(id, Node { peer, client: String::new() });
        let dialer = Dialer::with(&credentials, Plane::Peer, tuning()).unwrap();
        Peers::start(id, CLUSTER, listener, dialer)
    });
    receiver.0.set_members(nodes.clone());
    sender.0.set_members(nodes);
    let shelf = |name: &str| {
        let lock = DirLock::acquire(&dir.path().join(name)).unwrap();
        let checkpoints = Checkpoints::open(&lock, CLUSTER).unwrap();
        (lock, checkpoints)
    };
    let (lock, there) = shelf("there");
    let options = Options { map_bytes: 1 << 28, boot: Boot::named("boot"), ..Options::default() };
    let opened = Store::open(&lock, CLUSTER, &there, &options).unwrap();
    let checkpoint = there.make(&opened.store, &mut |_| ControlFlow::Continue(())).unwrap();
    let (carried, replaced) = (Arc::<Carried>::default(), Arc::<Mutex<Vec<u128>>>::default());
    let told = Arc::clone(&replaced);
    carried.replace_by(move |checkpoint| told.lock().unwrap().push(checkpoint.id()));
    Bench { receiver: receiver.0, sender, checkpoint, here: shelf("here").1, carried, replaced, _dir: dir }
}

impl Bench {
    /// A stream between them: the receiver's ends, the sender's.
    async fn stream(&mut self) -> (Ends, Ends) {
        let (writer, reader) = self.receiver.open_fetch(2, 0).await.unwrap();
        let (Stream { writer: there, reader: back, .. }, _) = self.sender.1.fetch.recv().await.unwrap();
        (Ends { writer, reader }, Ends { writer: there, reader: back })
    }

    /// What comes of sending it to somebody who judges so: of the receiver, and of the sender.
    async fn carry(&mut self, judged: Judged) -> (Result<Option<u128>, Error>, Result<Option<Ballot>, Error>) {
        let (mut to, from) = self.stream().await;
        let receiving = async {
            let received = receive(&mut to, &self.here, &self.carried, Others::Believed, |_| judged).await;
            match &received {
                Ok(Some(_)) => to.done(None).await.unwrap(),
                Ok(None) => {}
                Err(error) => to.failed(error).await,
            }
            received.map(|received| received.map(|checkpoint| checkpoint.id()))
        };
        tokio::join!(receiving, send(from, &self.checkpoint, FAST, &self.carried))
    }

    fn replaced(&self) -> Vec<u128> {
        self.replaced.lock().unwrap().clone()
    }

    fn sent(&self) -> u64 {
        self.carried.sent.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_wanted_arrives() {
    let mut bench = start();
    let (received, sent) = bench.carry(Judged::Wanted).await;
    assert_eq!((received.unwrap(), sent.unwrap()), (Some(bench.checkpoint.id()), None));
    assert_eq!(bench.here.newest().unwrap().id(), bench.checkpoint.id());
    assert_eq!((bench.sent(), bench.replaced()), (bench.checkpoint.bytes(), vec![]));
}

#[tokio::test]
async fn nothing_is_carried_of_what_is_refused_or_superfluous() {
    let mut bench = start();
    let (received, sent) = bench.carry(Judged::Refused("no".to_owned())).await;
    assert!(matches!(received, Err(Error::Checkpoint(why)) if why == "no"));
    assert!(matches!(sent, Err(Error::Failed(why)) if why.contains("no")));
    let held = Some(Ballot { term: 7, member: 1, committed: true });
    let (received, sent) = bench.carry(Judged::Superfluous(held)).await;
    assert_eq!((received.unwrap(), sent.unwrap()), (None, held));
    assert_eq!((bench.sent(), bench.replaced()), (0, vec![]));
    assert!(bench.here.newest().is_none());
}

#[tokio::test]
async fn a_file_that_rotted_where_it_comes_from_is_replaced_there() {
    let mut bench = start();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(bench.checkpoint.path()).unwrap();
    let (middle, mut byte) = (bench.checkpoint.bytes() / 2, [0]);
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let (received, sent) = bench.carry(Judged::Wanted).await;
    assert!(matches!(received, Err(Error::Damaged(_))), "{received:?}");
    assert!(matches!(sent, Err(Error::Damaged(_))), "{sent:?}");
    assert_eq!(bench.replaced(), [bench.checkpoint.id()]);
}

#[tokio::test]
async fn a_sound_file_stays_whatever_its_receiver_says_of_it() {
    let mut bench = start();
    let (mut to, from) = bench.stream().await;
    let complaining = async {
        assert!(matches!(to.hear().await.unwrap(), Transfer::Offer { .. }));
        to.failed(&Error::Damaged("my own disk".to_owned())).await;
    };
    let ((), sent) = tokio::join!(complaining, send(from, &bench.checkpoint, FAST, &bench.carried));
    assert!(matches!(sent, Err(Error::Damaged(_))), "{sent:?}");
    assert_eq!(bench.replaced(), []);
}
