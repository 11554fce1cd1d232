//! `conclave server --check-config`: what a member would use, and whether it fits together.

use std::net::SocketAddr;
use std::path::Path;

use conclave_link::{Credentials, Files, Listener, Plane};
use conclave_server::{Config, Limits};

use crate::out::{self, Failure, Outcome};
use crate::pki::show;

/// Says what this configuration means; [`Failure::Usage`] when a member could not start with it.
pub(crate) fn run(path: &Path, config: &Config, json: bool) -> Outcome {
    let credentials = credentials(config)?;
    let summary = credentials.summary();
    let fresh = !config.data.exists();
    let here = config.members.iter().find(|member| member.id == config.member);
    if json {
        let members: Vec<_> = config
            .members
            .iter()
            .map(|member| serde_json::json!({ "id": member.id, "client": member.client, "peer": member.peer }))
            .collect();
        out::line(serde_json::json!({
            "config": path,
            "cluster": config.cluster,
            "member": config.member,
            "members": members,
            "listen": {
                "client": config.listen.client,
                "peer": config.listen.peer,
                "admin": config.listen.admin,
            },
            "data": config.data,
            "data_exists": !fresh,
            "tls": config.tls,
            "limits": limits_json(config),
            "certificate": show::json(summary),
        }));
        return Ok(());
    }
    out::line(format!("{} is good", path.display()));
    out::line(format!("cluster      {}", config.cluster));
    out::line(format!("member       {} of {}", config.member, config.members.len()));
    let admin = config.listen.admin.map(|admin| format!(" · metrics {admin}")).unwrap_or_default();
    out::line(format!("listens      clients {} · members {}{admin}", config.listen.client, config.listen.peer));
    if let Some(here) = here {
        out::line(format!("reached at   clients {} · members {}", here.client, here.peer));
    }
    let state = match (fresh, config.initialize) {
        (false, _) => "there",
        (true, true) => "not there yet; this member makes the new cluster",
        (true, false) => "not there yet; waits for the member that makes the cluster",
    };
    out::line(format!("data         {} ({state})", config.data.display()));
    out::line(format!("limits       {}", limits(config)));
    out::line(format!("certificate  {}", show::brief(summary)));
    Ok(())
}

/// Limits that are not the defaults, with their bounds.
fn limits(config: &Config) -> String {
    let set = config.effective_limits().all().into_iter().zip(Limits::default().all());
    let others = set.filter(|((_, value, ..), (_, default, ..))| value != default);
    let others = others.map(|((name, value, least, most), _)| format!("{name} {value} (of {least} to {most})"));
    let others: Vec<String> = others.collect();
    if others.is_empty() { "the defaults".to_owned() } else { others.join(" · ") }
}

fn limits_json(config: &Config) -> serde_json::Map<String, serde_json::Value> {
    let limits = config.effective_limits().all().into_iter();
    let json = |(name, value, least, most): (&str, u64, u64, u64)| {
        (name.to_owned(), serde_json::json!({ "value": value, "least": least, "most": most }))
    };
    limits.map(json).collect()
}

/// Loads the member's credentials and tries them as a start would, on a port that nobody uses.
pub(crate) fn credentials(config: &Config) -> Outcome<Credentials> {
    let usage = |error: conclave_link::Error| Failure::Usage(error.to_string());
    let credentials = Credentials::load(&Files::in_dir(&config.tls)).map_err(|error| {
        let made = format!(
            "make it with `conclave pki issue member {} --dir <authorities> --out {}`",
            config.member,
            config.tls.display()
        );
        Failure::Usage(if config.tls.exists() { error.to_string() } else { format!("{error}; {made}") })
    })?;
    let named = credentials.principal();
    if named.member_id() != Some(config.member) {
        let text = format!(
            "{}: the certificate is {named}'s, but this is member {}. Issue one for member {}, or set `member`",
            config.tls.display(),
            config.member,
            config.member
        );
        return Err(Failure::Usage(text));
    }
    if show::has_expired(credentials.summary()) {
        let until = show::date(credentials.summary().not_after);
        let text = format!("the certificate expired on {until}. Renew it with `conclave pki renew`");
        return Err(Failure::Usage(format!("{}: {text}", config.tls.display())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::broken("cannot start a runtime", error))?;
    runtime.block_on(async {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for plane in [Plane::Client, Plane::Peer] {
            Listener::bind(any, plane, &credentials).map_err(usage)?;
        }
        Ok(credentials)
    })
}
