//! Access lists in JSON, and principals: those of the client's own trust domain go by their short names.

use conclave_protocol::{AccessList, Grant, Permissions, Who};
use serde_json::{Value, json};

use crate::fields::Fields;
use crate::request::Wrong;

/// How one client's lines are read and written: it knows the client's principal, and so what `me` and `client/alice`
/// mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// The client's URI.
    me: String,
    /// `spiffe://<trust domain>/`; none where the principal is no such URI.
    domain: Option<String>,
}

impl Dialect {
    /// The dialect of the client with this principal, such as `spiffe://example/client/ci`.
    #[must_use]
    pub fn of(principal: &str) -> Self {
        let domain = principal.strip_prefix("spiffe://").and_then(|rest| {
            let (domain, _) = rest.split_once('/')?;
            Some(format!("spiffe://{domain}/"))
        });
        Self { me: principal.to_owned(), domain }
    }

    /// Whom a text means: `anyone`, `me`, `client/NAME` of the own trust domain, or a whole URI.
    ///
    /// # Errors
    /// When it is none of these; the text says so.
    pub fn who(&self, text: &str) -> Result<Who, String> {
        let none = || Err(format!("{text:?} is nobody: anyone, me, client/NAME or spiffe://DOMAIN/client/NAME is"));
        let uri = match (text, &self.domain) {
            ("anyone", _) => return Ok(Who::Anyone),
            ("me", _) if !self.me.is_empty() => self.me.clone(),
            (short, Some(domain)) if is_short(short) => format!("{domain}{short}"),
            (uri, _) if uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).is_some() => uri.to_owned(),
            _ => return none(),
        };
        Ok(Who::Principal(uri))
    }

    /// A grant as the command line has it: `anyone:r`, `client/alice:crwda`, `me:a`.
    ///
    /// # Errors
    /// When it is no grant; the text says why.
    pub fn grant(&self, text: &str) -> Result<Grant, String> {
        let Some((who, may)) = text.rsplit_once(':') else {
            return Err(format!("{text:?} is no grant: WHO:PERMISSIONS is, such as anyone:r or client/alice:crwda"));
        };
        Ok(Grant { who: self.who(who)?, may: may.parse()? })
    }

    /// A principal as it is shown: its short name if it is of the own trust domain.
    #[must_use]
    pub fn short<'a>(&self, principal: &'a str) -> &'a str {
        let own = self.domain.as_ref().and_then(|domain| principal.strip_prefix(domain.as_str()));
        own.filter(|short| is_short(short)).unwrap_or(principal)
    }

    /// A list as JSON.
    #[must_use]
    pub fn acl(&self, acl: &AccessList) -> Value {
        let grant = |grant: &Grant| {
            let who = match &grant.who {
                Who::Anyone => "anyone",
                Who::Principal(one) => self.short(one),
            };
            json!({ "who": who, "may": grant.may.to_string() })
        };
        acl.0.iter().map(grant).collect()
    }

    /// The list under `acl`, if there is one.
    pub(crate) fn take_acl(&self, fields: &mut Fields) -> Result<Option<AccessList>, Wrong> {
        let Some(list) = fields.list("acl")? else { return Ok(None) };
        let mut grants = Vec::with_capacity(list.len());
        for (n, grant) in list.into_iter().enumerate() {
            let at = format!("grant {n}");
            let at = if fields.at().is_empty() { at } else { format!("{}, {at}", fields.at()) };
            let mut grant = Fields::of(at, grant)?;
            let who = grant.text("who")?.ok_or_else(|| grant.missing("who", "anyone, me or client/NAME"))?;
            let may = grant.text("may")?.ok_or_else(|| grant.missing("may", "letters of crwda"))?;
            let who = self.who(&who).map_err(|why| grant.bad("who", &why))?;
            let may = may.parse::<Permissions>().map_err(|why| grant.bad("may", &why))?;
            grant.end("a grant")?;
            grants.push(Grant { who, may });
        }
        Ok(Some(AccessList(grants)))
    }
}

fn is_short(text: &str) -> bool {
    text.strip_prefix("client/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_of_the_own_domain() {
        let dialect = Dialect::of("spiffe://example/client/ci");
        let uri = |text: &str| Ok(Who::Principal(text.to_owned()));
        assert_eq!(dialect.who("anyone"), Ok(Who::Anyone));
        assert_eq!(dialect.who("me"), uri("spiffe://example/client/ci"));
        assert_eq!(dialect.who("client/alice"), uri("spiffe://example/client/alice"));
        assert_eq!(dialect.who("spiffe://other/client/bob"), uri("spiffe://other/client/bob"));
        for bad in ["", "alice", "client/", "client/a/b", "spiffe://x", "Anyone"] {
            assert!(dialect.who(bad).is_err(), "{bad}");
        }
        assert!(Dialect::default().who("me").is_err());
        assert!(Dialect::default().who("client/alice").is_err());
        assert_eq!(dialect.short("spiffe://example/client/alice"), "client/alice");
        assert_eq!(dialect.short("spiffe://other/client/bob"), "spiffe://other/client/bob");
        assert_eq!(dialect.short(""), "");
    }

    #[test]
    fn a_grant_is_who_and_letters() {
        let dialect = Dialect::of("spiffe://example/client/ci");
        let grants: Vec<Grant> =
            ["anyone:r", "client/alice:crwda", "spiffe://o/client/b:"].map(|text| dialect.grant(text).unwrap()).into();
        assert_eq!(
            dialect.acl(&AccessList(grants)),
            json!([
                { "who": "anyone", "may": "r" },
                { "who": "client/alice", "may": "crwda" },
                { "who": "spiffe://o/client/b", "may": "" },
            ])
        );
        for (bad, says) in [("anyone", "WHO:PERMISSIONS"), ("bob:r", "nobody"), ("me:x", "'x' is no permission")] {
            let error = dialect.grant(bad).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
