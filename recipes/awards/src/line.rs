//! The line on plain znodes: its places, their order, and the transactions by which places become awards.

use bytes::Bytes;
use conclave_client::{Client, CreateStep, Error as ClientError, Kind, Path, Refusal, Step};

use crate::error::{Error, Result};
use crate::owned::{Owned, UnderWay, commit, to_its_end};

/// The award that is wanted: an ephemeral znode, made on conditions.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The holder znode; of a numbered one, what its path begins with.
    pub holder: Path,
    /// Several may hold it, each under a number of its own.
    pub is_numbered: bool,
    /// What lies in the znode.
    pub data: Bytes,
    /// What must be so at that moment, besides.
    pub only_if: Vec<Step>,
}

/// What came of trying to make an award from a place in line.
#[derive(Debug)]
pub enum Turn {
    /// It is ours; the place is gone.
    Award(Owned),
    /// It is not to be had now: here is the place again.
    NotNow(Owned),
}

/// The number in a place's name, whatever stands before its last `-`; none if it is no place.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('-')?;
    let all = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// A place's rank in line, lowest first: by number and not by name, as after ten digits come eleven. None if it is no
/// place.
#[must_use]
pub fn order(name: &str) -> Option<(u64, &str)> {
    Some((number(name)?, name))
}

/// Takes a place at the end of the line; its path begins with `place`, and the line is made if it is not there.
///
/// Dropping the future gives back what it may have taken.
///
/// # Errors
/// As every write in the session.
pub async fn queue(client: &Client, line: &Path, place: &Path, data: Bytes, under_way: &UnderWay) -> Result<Owned> {
    // Raises the line's version: an award without a place counts on it.
    let multi = client.transaction().step(ephemeral(place, data, true)).set(line, "");
    let client = client.clone();
    to_its_end(under_way.begin().await, async move { Ok(Owned::created(&client, commit(multi).await?)?) }).await
}

/// Makes an award without a place in line, if the line has this version, at which it was empty. None when it is not to be
/// had so.
///
/// Dropping the future gives back what it may have taken.
///
/// # Errors
/// As every write in the session.
pub async fn take_free(
    client: &Client,
    line: &Path,
    version: u64,
    wanted: Wanted,
    under_way: &UnderWay,
) -> Result<Option<Owned>> {
    let Wanted { holder, is_numbered, data, only_if } = wanted;
    let multi = client.multi(only_if).check_version(line, version).step(ephemeral(&holder, data, is_numbered));
    let client = client.clone();
    to_its_end(under_way.begin().await, async move {
        match commit(multi).await {
            Ok(values) => Ok(Some(Owned::created(&client, values)?)),
            Err(error) if is_not_now(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Makes an award from a place in line, which goes in the same transaction.
///
/// Dropping the future gives back what it may have taken, and the place.
///
/// # Errors
/// [`Error::PlaceGone`]; otherwise as every write in the session.
pub async fn take_turn(place: Owned, wanted: Wanted, under_way: &UnderWay) -> Result<Turn> {
    let Wanted { holder, is_numbered, data, only_if } = wanted;
    let fence = place.fence().clone();
    let multi = place
        .client()
        .multi(only_if)
        .delete_recursive(&fence.path)
        .step(ephemeral(&holder, data, is_numbered))
        // A path alone would do for another's place too, if the line was deleted and made anew.
        .fenced(fence);
    to_its_end(under_way.begin().await, async move {
        match commit(multi).await {
            Ok(values) => {
                let award = Owned::created(place.client(), values);
                place.forget();
                Ok(Turn::Award(award?))
            }
            Err(ClientError::Refused(Refusal::Fenced { .. })) => {
                let gone = place.fence().path.clone();
                place.forget();
                Err(Error::PlaceGone { place: gone })
            }
            Err(error) if is_not_now(&error) => Ok(Turn::NotNow(place)),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Some step found the tree otherwise than it was seen.
fn is_not_now(error: &ClientError) -> bool {
    let Some(Refusal::Step { cause, .. }) = error.refusal() else { return false };
    matches!(
        **cause,
        Refusal::BadVersion { .. }
            | Refusal::NoZnode { .. }
            | Refusal::ZnodeExists { .. }
            | Refusal::CheckFailed { .. }
            | Refusal::Fenced { .. }
    )
}

fn ephemeral(path: &Path, data: Bytes, sequential: bool) -> Step {
    let kind = Kind { ephemeral: true, sequential, ..Kind::default() };
    Step::Create(CreateStep { kind, parents: true, ..CreateStep::new(path.clone(), data) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_number_of_at_least_ten_digits() {
        for (name, expected) in [
            ("w-0000000007", Some(7)),
            ("x-y-0000000007", Some(7)),
            ("w-12345678901", Some(12_345_678_901)),
            ("w-7", None),
            ("w-", None),
            ("0000000007", None),
            ("w-00000000+7", None),
            ("w-99999999999999999999999", None),
            ("note", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
        assert!(order("w-9999999999") < order("w-10000000000"), "by number, not by name");
    }
}
