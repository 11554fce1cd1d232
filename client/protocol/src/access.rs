//! Access lists: who may do what to a znode.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What can be allowed: ZooKeeper's five. Deleting a znode needs `delete` on its *parent*, as creating one needs
/// `create` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Create children.
    Create,
    /// Read its data and stat, list its children, be told of changes.
    Read,
    /// Set its data.
    Write,
    /// Delete children.
    Delete,
    /// Set its access list.
    Admin,
}

impl Permission {
    /// All five, in the order of their letters in `crwda`.
    pub const ALL: [Self; 5] = [Self::Create, Self::Read, Self::Write, Self::Delete, Self::Admin];

    /// Its letter, as ZooKeeper writes it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Delete => 'd',
            Self::Admin => 'a',
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Admin => "admin",
        })
    }
}

/// A set of permissions; written as letters, `crwda` being all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permissions(u8);

impl Permissions {
    /// All five.
    pub const ALL: Self = Self(0b1_1111);

    /// These.
    #[must_use]
    pub fn of(permissions: &[Permission]) -> Self {
        Self(permissions.iter().fold(0, |bits, permission| bits | 1 << *permission as u8))
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u8 != 0
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = Permission::ALL.into_iter().filter(|permission| self.has(*permission)).map(Permission::letter);
        f.pad(&letters.collect::<String>())
    }
}

impl FromStr for Permissions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut permissions = Vec::new();
        for letter in text.chars() {
            let permission = Permission::ALL.into_iter().find(|permission| permission.letter() == letter);
            permissions.push(permission.ok_or_else(|| {
                format!("{letter:?} is no permission: c create, r read, w write, d delete, a admin are")
            })?);
        }
        Ok(Self::of(&permissions))
    }
}

impl TryFrom<String> for Permissions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Permissions> for String {
    fn from(permissions: Permissions) -> Self {
        permissions.to_string()
    }
}

/// Whom a [`Grant`] is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Every client.
    Anyone,
    /// The client with this URI in its certificate, exactly.
    Principal(String),
}

impl Who {
    /// Whether this principal is meant.
    #[must_use]
    pub fn is(&self, principal: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Principal(one) => one == principal,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Anyone => "anyone",
            Self::Principal(one) => one,
        })
    }
}

/// Allows somebody something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Whom.
    pub who: Who,
    /// What.
    pub may: Permissions,
}

/// Who may do what to a znode: what any of its grants allows. It holds for that znode alone; a new child begins with a
/// copy of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessList(pub Vec<Grant>);

impl AccessList {
    /// Everything to everybody: what the root begins with.
    #[must_use]
    pub fn open() -> Self {
        Self(vec![Grant { who: Who::Anyone, may: Permissions::ALL }])
    }

    /// Whether it allows that.
    #[must_use]
    pub fn allows(&self, principal: &str, permission: Permission) -> bool {
        self.0.iter().any(|grant| grant.may.has(permission) && grant.who.is(principal))
    }

    /// The same list in its one normal form: sorted, one grant for each, none that allows nothing.
    #[must_use]
    pub fn normal(&self) -> Self {
        let mut by_who = std::collections::BTreeMap::<&Who, u8>::new();
        for grant in &self.0 {
            *by_who.entry(&grant.who).or_default() |= grant.may.0;
        }
        let grants = by_who.into_iter().filter(|(_, may)| *may != 0);
        Self(grants.map(|(who, may)| Grant { who: who.clone(), may: Permissions(may) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_letters() {
        for (text, permissions) in
            [("", Permissions::default()), ("r", Permissions::of(&[Permission::Read])), ("crwda", Permissions::ALL)]
        {
            assert_eq!(text.parse(), Ok(permissions));
            assert_eq!(permissions.to_string(), text);
        }
        assert_eq!("adwrc".parse(), Ok(Permissions::ALL));
        assert!("rx".parse::<Permissions>().unwrap_err().contains("'x'"));
    }

    #[test]
    fn a_list_allows_what_any_grant_does_and_has_one_normal_form() {
        let grant = |who: Who, may: &str| Grant { who, may: may.parse().unwrap() };
        let alice = || Who::Principal("alice".to_owned());
        let list = AccessList(vec![grant(alice(), "w"), grant(Who::Anyone, "r"), grant(alice(), "a")]);
        assert!(list.allows("alice", Permission::Write) && list.allows("alice", Permission::Read));
        assert!(!list.allows("bob", Permission::Write) && !list.allows("alice", Permission::Create));
        let normal = AccessList(vec![grant(Who::Anyone, "r"), grant(alice(), "wa")]);
        assert_eq!(list.normal(), normal);
        assert_eq!(normal.normal(), normal);
        assert_eq!(AccessList(vec![grant(alice(), "")]).normal(), AccessList(Vec::new()));
    }
}
