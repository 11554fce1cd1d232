//! The authorities of a test's cluster, and the certificates that they issue.

use std::path::{Path, PathBuf};

use conclave_link::pki::{Authority, Spec, write_credentials};
use conclave_link::{Plane, Principal, TrustDomain};

use crate::{Error, below};

/// How long the certificates hold.
const DAYS: u32 = 1;

/// A client authority and a peer authority.
pub struct Pki {
    dir: PathBuf,
    domain: TrustDomain,
    peer: Authority,
    client: Authority,
}

impl Pki {
    /// Makes both.
    ///
    /// # Errors
    /// When their files can't be written.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let dir = below(dir, &["pki"]);
        let domain = TrustDomain::new("test.conclave")?;
        let peer = Authority::create(&dir, Plane::Peer, &domain)?;
        let client = Authority::create(&dir, Plane::Client, &domain)?;
        Ok(Self { dir, domain, peer, client })
    }

    /// The directory with a member's credentials, made on first use.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn member(&self, id: u64) -> Result<PathBuf, Error> {
        self.issue(&below(&self.dir, &["members", &id.to_string()]), Principal::member(&self.domain, id)?)
    }

    /// The directory with a client's credentials, made on first use.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn client(&self, name: &str) -> Result<PathBuf, Error> {
        self.issue(&below(&self.dir, &["clients", name]), Principal::client(&self.domain, name)?)
    }

    /// Revokes a client's certificate, and gives the new list to these members.
    ///
    /// # Errors
    /// When files can't be read or written.
    pub fn revoke_client(&self, name: &str, members: &[u64]) -> Result<(), Error> {
        let file = self.client(name)?.join("tls.crt");
        let summary = conclave_link::pki::summary(&file, &std::fs::read_to_string(&file)?)?;
        self.client.revoke(&summary.serial)?;
        for id in members {
            conclave_link::pki::copy_lists(&self.member(*id)?, &self.peer, &self.client)?;
        }
        Ok(())
    }

    fn issue(&self, dir: &Path, principal: Principal) -> Result<PathBuf, Error> {
        if !dir.join("tls.crt").exists() {
            let authority = if principal.member_id().is_some() { &self.peer } else { &self.client };
            let issued = authority.issue(&Spec::new(principal, DAYS))?;
            write_credentials(dir, &issued, &self.peer, &self.client)?;
        }
        Ok(dir.to_owned())
    }
}
