//! `conclave server --replace`: what to do when a member's log or disk is lost, filled in from its configuration.

use std::path::Path;

use conclave_server::Config;

use crate::out::{self, Outcome};

/// One step: what it is for, and the command, where there is one.
struct Step {
    why: String,
    command: Option<String>,
}

/// Says it. Nothing is done.
pub(crate) fn run(path: &Path, config: &Config, json: bool) -> Outcome {
    let new = config.members.iter().map(|member| member.id).max().unwrap_or(0).max(config.member) + 1;
    let steps = steps(path, config, new);
    if json {
        let here = config.members.iter().find(|member| member.id == config.member);
        let steps: Vec<_> =
            steps.iter().map(|step| serde_json::json!({ "why": step.why, "command": step.command })).collect();
        out::line(serde_json::json!({
            "cluster": config.cluster,
            "member": config.member,
            "new_member": new,
            "client": here.map(|here| &here.client),
            "peer": here.map(|here| &here.peer),
            "data": config.data,
            "tls": config.tls,
            "steps": steps,
        }));
        return Ok(());
    }
    out::line(format!(
        "Member {} of cluster {} has lost its log, or its disk. It has promised what it no longer knows, so it must not \
         come back under its number: it is taken out, and added again, empty, as member {new}. Nothing is done by this \
         command; these are the steps.\n",
        config.member, config.cluster
    ));
    for (n, step) in (1..).zip(&steps) {
        out::line(format!("{n}. {}", step.why));
        if let Some(command) = &step.command {
            out::line(format!("     {command}"));
        }
    }
    Ok(())
}

fn steps(path: &Path, config: &Config, new: u64) -> Vec<Step> {
    let step = |why: String, command: Option<String>| Step { why, command };
    let (data, tls, file) = (config.data.display(), config.tls.display(), path.display());
    let old = config.member;
    if config.members.len() == 1 {
        return vec![
            step(
                format!(
                    "Member {old} is alone in its configuration. If the cluster has no other, only a backup has what it held:"
                ),
                None,
            ),
            step(
                "restore it, as a new cluster".to_owned(),
                Some("conclave restore FILE --dir DIR --cluster NEW-ID --client HOST:PORT --peer HOST:PORT".to_owned()),
            ),
            step("if it has others, name them in `members`, and ask again".to_owned(), None),
        ];
    }
    let address = config.members.iter().find(|member| member.id == old);
    let (client, peer) = address.map_or(("HOST:PORT", "HOST:PORT"), |at| (at.client.as_str(), at.peer.as_str()));
    vec![
        step(
            format!("Stop member {old}, if it runs. Put its directory aside: it may tell what happened."),
            Some(format!("mv {data} {data}.lost")),
        ),
        step(
            format!("See that the others are well, and that none has a number above {}.", new - 1),
            Some("conclave cluster list".to_owned()),
        ),
        step(
            "Take it out. This is refused when too few of the others answer.".to_owned(),
            Some(format!("conclave cluster remove {old}")),
        ),
        step(
            format!("Issue a certificate for member {new}, and revoke the old one."),
            Some(format!(
                "conclave pki revoke {tls} --dir AUTHORITIES && conclave pki issue member {new} --dir AUTHORITIES --out {tls}"
            )),
        ),
        step(
            format!(
                "Edit {file}: member = {new}; in `members`, id = {new} in place of {old}; initialize = false. Copy the new \
                 revocation list to every member."
            ),
            Some(format!("conclave server --config {file} --check-config")),
        ),
        step("Start it.".to_owned(), Some(format!("conclave server --config {file}"))),
        step(
            "Add it: it is sent everything, and gets its vote when it has caught up.".to_owned(),
            Some(format!("conclave cluster add {new} --client {client} --peer {peer}")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn commands(config: &Config) -> Vec<String> {
        steps(Path::new("two/member.toml"), config, 4).into_iter().filter_map(|step| step.command).collect()
    }

    #[test]
    fn the_commands_are_filled_in_from_the_configuration() {
        let mut config = Config::parse(&Config::example(), []).unwrap();
        config.member = 2;
        let all = commands(&config).join("\n");
        for said in [
            "mv data data.lost",
            "conclave cluster remove 2",
            "pki revoke tls --dir AUTHORITIES && conclave pki issue member 4 --dir AUTHORITIES --out tls",
            "conclave server --config two/member.toml",
            "conclave cluster add 4 --client two.example:7101 --peer two.example:7201",
        ] {
            assert!(all.contains(said), "{said}: {all}");
        }
    }

    #[test]
    fn one_that_was_alone_is_sent_to_its_backup() {
        let mut config = Config::parse(&Config::example(), []).unwrap();
        config.members.truncate(1);
        let all = commands(&config);
        assert!(all.len() == 1 && all[0].starts_with("conclave restore "), "{all:?}");
    }
}
