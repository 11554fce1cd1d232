//! The transactions that make ephemeral znodes, and what it means when they fail.

use bytes::Bytes;
use conclave_awards::UNTIL_ANSWERED;
use conclave_client::{Client, CreateStep, Error as ClientError, Fence, Kind, Multi, Path, Refusal, Set, Step, Zxid};

/// Replaces its data, as long as it is this znode.
pub(crate) fn set(client: &Client, fence: &Fence, data: Bytes) -> Set {
    client.at(&fence.path).set(data).fenced(fence.clone()).in_session().within(UNTIL_ANSWERED)
}

/// The transaction that makes an ephemeral znode, and its persistent parents where they are missing; in the place of the
/// one that was created by `instead_of`, if that is said, and then only if it is still there.
pub(crate) fn creation(client: &Client, path: &Path, data: Bytes, instead_of: Option<Zxid>) -> Multi {
    let mut multi = client.transaction();
    if let Some(created) = instead_of {
        multi = multi.check_created(path, created).delete_recursive(path);
    }
    let kind = Kind { ephemeral: true, ..Kind::default() };
    multi.step(Step::Create(CreateStep { kind, parents: true, ..CreateStep::new(path.clone(), data) }))
}

/// What refused a transaction: that of the step, if it was a step.
pub(crate) const fn cause(refusal: &Refusal) -> &Refusal {
    match refusal {
        Refusal::Step { cause, .. } => cause,
        other => other,
    }
}

/// Somebody was faster: the tree is not what the transaction was made for. Looking again helps.
pub(crate) const fn is_overtaken(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => matches!(
            cause(refusal),
            Refusal::ZnodeExists { .. }
                | Refusal::NoZnode { .. }
                | Refusal::Fenced { .. }
                | Refusal::CheckFailed { .. }
                | Refusal::BadVersion { .. }
        ),
        _ => false,
    }
}

/// The session is over, or its client is closed, which ends it.
pub(crate) const fn is_over(error: &ClientError) -> bool {
    error.is_session_over() || matches!(error, ClientError::Closed { .. })
}
