//! `acl`: who may do what to a znode.

use conclave_client::{AccessList, Client, Grant, Permission, Stat};
use conclave_script::Dialect;
use serde_json::{Value, json};

use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::{Out, table};
use crate::read::fresh;

pub(crate) async fn run(client: &Client, command: &args::Acl, out: Out) -> Result<u8, Failure> {
    match command {
        args::Acl::Get(args) => {
            let access = fresh!(client.at(&args.path).acl(), args.fresh).await.reading()?;
            let dialect = dialect(client);
            let value = shown(&dialect, &args.path, &access.acl, &access.stat);
            out.show(&value, |_| text(&dialect, &args.path, &access.acl, &access.stat))?;
        }
        args::Acl::Set(args) => {
            let acl = AccessList(grants(client, &args.grants)?);
            let mut set = client.at(&args.path).set_acl(acl.clone());
            if let Some(version) = args.if_acl_version {
                set = set.if_acl_version(version);
            }
            if let Some(fence) = args.fence.clone() {
                set = set.fenced(fence);
            }
            let stat = set.await.writing()?;
            let value = shown(&dialect(client), &args.path, &acl.normal(), &stat);
            out.show(&value, |_| format!("set the access list of {}  acl version {}", args.path, stat.acl_version))?;
        }
    }
    Ok(DONE)
}

/// How principals are written: those of the client's own trust domain by their short names.
pub(crate) fn dialect(client: &Client) -> Dialect {
    client.peer().map(|peer| Dialect::of(&peer.principal)).unwrap_or_default()
}

/// Grants as the command line has them.
pub(crate) fn grants(client: &Client, texts: &[String]) -> Result<Vec<Grant>, Failure> {
    let dialect = dialect(client);
    texts.iter().map(|text| dialect.grant(text)).collect::<Result<_, _>>().map_err(Failure::Usage)
}

fn shown(dialect: &Dialect, path: &str, acl: &AccessList, stat: &Stat) -> Value {
    json!({ "path": path, "acl": dialect.acl(acl), "acl_version": stat.acl_version })
}

fn text(dialect: &Dialect, path: &str, acl: &AccessList, stat: &Stat) -> String {
    let row = |grant: &Grant| {
        let names = Permission::ALL.into_iter().filter(|permission| grant.may.has(*permission));
        let names: Vec<String> = names.map(|permission| permission.to_string()).collect();
        let who = grant.who.to_string();
        vec![dialect.short(&who).to_owned(), grant.may.to_string(), names.join(", ")]
    };
    let rows: Vec<Vec<String>> = acl.0.iter().map(row).collect();
    let table = table(&["WHO", "MAY", ""], &[false, false, false], &rows);
    format!("{path}  acl version {}\n\n{table}", stat.acl_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shown_with_short_names_and_its_version() {
        let dialect = Dialect::of("spiffe://example/client/ci");
        let acl = AccessList(["anyone:r", "client/alice:crwda"].map(|text| dialect.grant(text).unwrap()).into());
        let stat = Stat { acl_version: 2, ..Stat::default() };
        assert_eq!(
            text(&dialect, "/a", &acl, &stat),
            "/a  acl version 2\n\nWHO           MAY\nanyone        r      read\n\
             client/alice  crwda  create, read, write, delete, admin\n"
        );
        assert_eq!(
            shown(&dialect, "/a", &acl, &stat),
            json!({ "path": "/a", "acl_version": 2, "acl": [
                { "who": "anyone", "may": "r" }, { "who": "client/alice", "may": "crwda" },
            ]})
        );
    }
}
