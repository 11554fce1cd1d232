//! What to do about a path at which a znode is to be kept: pure.

use conclave_client::{SessionId, Stat, Zxid};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing is there: create it.
    Create,
    /// A znode is there that may be replaced, by the zxid of its creation.
    Replace(Zxid),
    /// It is somebody else's: wait until it goes.
    Wait {
        /// Whose.
        owner: Option<SessionId>,
    },
}

/// Decides by what was found there, which sessions were one's own before, and whether anybody's may be replaced.
///
/// What one's own *present* session has there was made by somebody else in the same program: replacing it would begin a
/// quarrel of two keepers who each replace the other's.
pub(crate) fn decide(found: Option<&Stat>, former: &[SessionId], replaces: bool) -> Decision {
    match found {
        None => Decision::Create,
        Some(stat) => match stat.owner {
            Some(owner) if replaces || former.contains(&owner) => Decision::Replace(stat.created),
            // One that is not ephemeral was made on purpose, and is nobody's ghost.
            owner => Decision::Wait { owner },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ghosts_of_ones_own_are_replaced_unless_it_is_said() {
        let (ghost, other) = (SessionId(1), SessionId(2));
        let stat = |owner| Stat { created: Zxid(9), owner, ..Stat::default() };
        for (found, replaces, expected) in [
            (None, false, Decision::Create),
            (None, true, Decision::Create),
            (Some(stat(Some(ghost))), false, Decision::Replace(Zxid(9))),
            (Some(stat(Some(other))), false, Decision::Wait { owner: Some(other) }),
            (Some(stat(Some(other))), true, Decision::Replace(Zxid(9))),
            (Some(stat(None)), false, Decision::Wait { owner: None }),
            (Some(stat(None)), true, Decision::Wait { owner: None }),
        ] {
            assert_eq!(decide(found.as_ref(), &[SessionId(8), ghost], replaces), expected, "{found:?} {replaces}");
        }
        assert_eq!(decide(Some(&stat(Some(ghost))), &[], false), Decision::Wait { owner: Some(ghost) });
    }
}
