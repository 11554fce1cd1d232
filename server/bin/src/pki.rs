//! `conclave pki`: certificate authorities, certificates and revocation lists, in files.

use std::path::{Path, PathBuf};

use conclave_link::pki::{self, Authority, CERTIFICATE_DAYS, Issued, Serial, Spec, TLS_CRT};
use conclave_link::{Plane, Principal, TrustDomain};

use crate::out::{self, Failure, Outcome};

pub(crate) mod show;

/// Make certificate authorities, issue, renew and revoke certificates
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the two authorities of an installation: one for clients, one for members
    Init {
        #[command(flatten)]
        place: Place,
        /// The name that all certificates of the installation share
        #[arg(long, value_name = "NAME", default_value = "conclave")]
        trust_domain: TrustDomain,
    },
    /// Issue a certificate with a new key
    Issue {
        #[command(subcommand)]
        whom: Whom,
    },
    /// Renew the certificate of a directory that `issue` wrote; the key stays
    Renew {
        /// The directory with tls.crt and tls.key
        #[arg(value_name = "CREDENTIALS")]
        credentials: PathBuf,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        validity: Validity,
    },
    /// Put a certificate on its authority's revocation list
    Revoke {
        /// The certificate: its file, or the directory with tls.crt
        #[arg(value_name = "CERTIFICATE", required_unless_present = "serial")]
        what: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
        /// Its serial number instead, in hexadecimal; needs --kind
        #[arg(long, value_name = "HEX", conflicts_with = "what", requires = "kind")]
        serial: Option<Serial>,
        /// What the serial number's owner is
        #[arg(long, value_enum, requires = "serial")]
        kind: Option<Kind>,
        /// A member's tls directory that the lists are copied into; can be given several times
        #[arg(long, value_name = "DIR")]
        copy_to: Vec<PathBuf>,
    },
    /// Say what a certificate, a directory of credentials or a directory of authorities holds
    Show {
        /// The file or the directory
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Whom {
    /// For a member, by number
    Member {
        /// Its number
        #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        #[command(flatten)]
        how: How,
    },
    /// For a client, by name
    Client {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    validity: Validity,
    /// Where tls.crt, tls.key and the authorities' certificates go [default: member-ID or client-NAME in --dir]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The directory with the authorities
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Validity {
    /// Days that the certificate is valid
    #[arg(long, value_name = "N", default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=pki::AUTHORITY_DAYS as i64))]
    days: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Client,
    Member,
}

impl Kind {
    const fn plane(self) -> Plane {
        match self {
            Self::Client => Plane::Client,
            Self::Member => Plane::Peer,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    match &args.command {
        Command::Init { place, trust_domain } => init(&place.dir, trust_domain, json),
        Command::Issue { whom } => issue(whom, json),
        Command::Renew { credentials, place, validity } => renew(credentials, &place.dir, validity.days, json),
        Command::Revoke { what, place, serial, kind, copy_to } => {
            let (plane, serial) = match (what, serial, kind) {
                (Some(path), _, _) => of_certificate(path, &place.dir)?,
                (None, Some(serial), Some(kind)) => (kind.plane(), serial.clone()),
                (None, _, _) => return Err(Failure::Usage("name a certificate, or --serial and --kind".to_owned())),
            };
            revoke(plane, &serial, &place.dir, copy_to, json)
        }
        Command::Show { path } => show::run(path, json),
    }
}

/// The authorities of a directory.
pub(crate) struct Authorities {
    /// Clients' certificates come from it.
    pub(crate) client: Authority,
    /// Members' certificates come from it.
    pub(crate) peer: Authority,
}

impl Authorities {
    /// Makes both, where neither is.
    pub(crate) fn create(dir: &Path, domain: &TrustDomain) -> Outcome<Self> {
        // Looked for before one is made, so that a refusal leaves the directory as it was.
        if let Some(key) = ["client-ca.key", "peer-ca.key"].map(|name| dir.join(name)).iter().find(|key| key.exists()) {
            return Err(failure(pki::Error::Exists(key.clone())));
        }
        let create = |plane| Authority::create(dir, plane, domain).map_err(failure);
        Ok(Self { client: create(Plane::Client)?, peer: create(Plane::Peer)? })
    }

    fn load(dir: &Path) -> Outcome<Self> {
        let load = |plane| {
            Authority::load(dir, plane).map_err(|error| match error {
                pki::Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => Failure::refused(
                    "no-authority",
                    format!(
                        "{} is not there. Make the authorities with `conclave pki init --dir {}`",
                        path.display(),
                        dir.display()
                    ),
                ),
                other => failure(other),
            })
        };
        Ok(Self { client: load(Plane::Client)?, peer: load(Plane::Peer)? })
    }

    fn of(&self, principal: &Principal) -> &Authority {
        if principal.member_id().is_some() { &self.peer } else { &self.client }
    }

    /// Issues a certificate and writes it with its key and what it trusts into `out`.
    pub(crate) fn issue(&self, principal: Principal, days: u32, out: &Path) -> Outcome<Issued> {
        let issued = self.of(&principal).issue(&Spec::new(principal, days)).map_err(failure)?;
        pki::write_credentials(out, &issued, &self.peer, &self.client).map_err(failure)?;
        Ok(issued)
    }
}

/// What to say when an authority could not do it.
pub(crate) fn failure(error: pki::Error) -> Failure {
    match error {
        pki::Error::Exists(_) => Failure::refused("exists", error.to_string()),
        pki::Error::NotOurs(_) => Failure::refused("not-ours", error.to_string()),
        other => Failure::Broken(other.to_string()),
    }
}

fn init(dir: &Path, domain: &TrustDomain, json: bool) -> Outcome {
    Authorities::create(dir, domain)?;
    if json {
        out::line(serde_json::json!({ "dir": dir, "trust_domain": domain.as_str() }));
    } else {
        out::line(format!(
            "authorities of the trust domain {domain} in {}, for clients and for members",
            dir.display()
        ));
        out::line("keep client-ca.key and peer-ca.key away from the members: whoever has them can be anybody");
    }
    Ok(())
}

fn issue(whom: &Whom, json: bool) -> Outcome {
    let (Whom::Member { how, .. } | Whom::Client { how, .. }) = whom;
    let authorities = Authorities::load(&how.place.dir)?;
    let domain = authorities.peer.domain();
    let (principal, label) = match whom {
        Whom::Member { id, .. } => (Principal::member(domain, *id), format!("member-{id}")),
        Whom::Client { name, .. } => (Principal::client(domain, name), format!("client-{name}")),
    };
    let principal = principal.map_err(|error| Failure::Usage(error.to_string()))?;
    let out = how.out.clone().unwrap_or_else(|| how.place.dir.join(label));
    let issued = authorities.issue(principal, how.validity.days, &out)?;
    said(&issued, &out, json);
    Ok(())
}

fn renew(credentials: &Path, dir: &Path, days: u32, json: bool) -> Outcome {
    let summary = show::read(credentials)?;
    let authorities = Authorities::load(dir)?;
    let issued = pki::renew_credentials(credentials, authorities.of(&summary.principal), days).map_err(failure)?;
    pki::copy_lists(credentials, &authorities.peer, &authorities.client).map_err(failure)?;
    said(&issued, credentials, json);
    Ok(())
}

fn said(issued: &Issued, dir: &Path, json: bool) {
    if json {
        let mut value = show::json(&issued.summary);
        value["dir"] = serde_json::json!(dir);
        out::line(value);
    } else {
        out::line(format!("{}  in {}", show::brief(&issued.summary), dir.display()));
    }
}

/// Which list a certificate belongs on, and its number.
fn of_certificate(path: &Path, dir: &Path) -> Outcome<(Plane, Serial)> {
    let summary = show::read(path)?;
    let authorities = Authorities::load(dir)?;
    let authority = authorities.of(&summary.principal);
    if summary.principal.domain() != authority.domain() {
        let text = format!(
            "{} is of another trust domain than the authorities in {} ({})",
            summary.principal.uri(),
            dir.display(),
            authority.domain()
        );
        return Err(Failure::refused("not-ours", text));
    }
    Ok((authority.plane(), summary.serial))
}

fn revoke(plane: Plane, serial: &Serial, dir: &Path, copy_to: &[PathBuf], json: bool) -> Outcome {
    let authorities = Authorities::load(dir)?;
    let (authority, list) = match plane {
        Plane::Client => (&authorities.client, pki::CLIENT_CRL),
        Plane::Peer => (&authorities.peer, pki::PEER_CRL),
    };
    // Before the list is changed: a typo in the last directory must not leave the first ones half done.
    if let Some(missing) = copy_to.iter().find(|to| !to.join(TLS_CRT).exists()) {
        return Err(Failure::Usage(format!("--copy-to {}: there is no {TLS_CRT}", missing.display())));
    }
    authority.revoke(serial).map_err(failure)?;
    for to in copy_to {
        pki::copy_lists(to, &authorities.peer, &authorities.client).map_err(failure)?;
    }
    let list = dir.join(list);
    if json {
        out::line(serde_json::json!({ "serial": serial.to_string(), "list": list, "copied_to": copy_to }));
    } else {
        out::line(format!("revoked {serial} on {}", list.display()));
        if copy_to.is_empty() {
            out::line(
                "copy the list into the tls directory of every member (or use --copy-to): it counts where it lies",
            );
        }
    }
    Ok(())
}
