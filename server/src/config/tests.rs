//! What a configuration can be, and what is said of one that can't.

use super::*;

fn none() -> Vec<(String, String)> {
    Vec::new()
}

fn edited(from: &str, to: &str) -> Result<Config, ConfigError> {
    let text = Config::example().replace(from, to);
    assert_ne!(text, Config::example(), "{from} is in the example");
    Config::parse(&text, none())
}

#[test]
fn the_printed_defaults_are_a_valid_configuration_with_the_defaults() {
    let config = Config::parse(&Config::example(), none()).unwrap();
    assert_eq!(config.raft, Raft::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.members.len(), 3);
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let error = edited("heartbeat_ms", "hartbeat_ms").unwrap_err();
    assert_eq!(error.to_string(), "there is no key `raft.hartbeat_ms`; did you mean `raft.heartbeat_ms`?");
    let error = edited("initialize = false", "colour = 1").unwrap_err();
    assert!(matches!(error, ConfigError::UnknownKey { nearest: None, .. }));
}

#[test]
fn values_that_cannot_be_are_refused() {
    assert!(matches!(edited("member = 1 ", "member = 4 "), Err(ConfigError::Value { key: "member", .. })));
    assert!(matches!(edited("id = 2", "id = 1"), Err(ConfigError::Value { key: "members", .. })));
    assert!(matches!(edited("127.0.0.1:7301", "0.0.0.0:7301"), Err(ConfigError::Value { key: "listen.admin", .. })));
    assert!(matches!(
        edited("heartbeat_ms = 80", "heartbeat_ms = 300"),
        Err(ConfigError::Value { key: "raft.heartbeat_ms", .. })
    ));
    let absurd = format!("heartbeat_ms = {}", i64::MAX);
    assert!(matches!(edited("heartbeat_ms = 80", &absurd), Err(ConfigError::Value { key: "raft.heartbeat_ms", .. })));
    assert!(matches!(edited("0.0.0.0:7101", "here"), Err(ConfigError::Form(_))));
}

#[test]
fn every_limit_can_be_set_within_its_bounds_and_no_other() {
    for (name, _, least, most) in Limits::default().all() {
        assert!(KEYS.contains(&format!("limits.{name}").as_str()), "{name} has no key");
        // The timeouts depend on each other: below.
        if name.starts_with("session_timeout") {
            continue;
        }
        let set = |value: u64| {
            let name = format!("CONCLAVE_LIMITS__{}", name.to_uppercase());
            Config::parse(&Config::example(), [(name, value.to_string())])
        };
        assert!(set(least).is_ok() && set(most).is_ok(), "{name}");
        let error = set(most + 1).unwrap_err().to_string();
        assert!(error.contains(&format!("limits.{name}")) && error.contains(&most.to_string()), "{error}");
    }
    let error = edited("multi_steps", "mulit_steps").unwrap_err();
    assert_eq!(error.to_string(), "there is no key `limits.mulit_steps`; did you mean `limits.multi_steps`?");
}

#[test]
fn what_plugins_may_spend_can_be_set_within_its_bounds_and_no_other() {
    assert_eq!(Config::parse(&Config::example(), none()).unwrap().plugins, Plugins::default());
    for (key, _, least, most, _) in Plugins::default().all() {
        assert!(KEYS.contains(&key), "{key} can't be set");
        let set = |value: u64| {
            let variable = format!("CONCLAVE_{}", key.replace('.', "__").to_uppercase());
            Config::parse(&Config::example(), [(variable, value.to_string())])
        };
        assert!(set(least).is_ok() && set(most).is_ok(), "{key}");
        for value in [least - 1, most + 1] {
            let error = set(value).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(&most.to_string()), "{error}");
        }
    }
    let variable = ("CONCLAVE_PLUGINS__CACHE".to_owned(), "false".to_owned());
    assert!(!Config::parse(&Config::example(), [variable]).unwrap().plugins.cache);
    let error = edited("planner_share_percent", "planer_share_percent").unwrap_err();
    let meant = "there is no key `plugins.planer_share_percent`; did you mean `plugins.planner_share_percent`?";
    assert_eq!(error.to_string(), meant);
}

#[test]
fn sessions_last_at_least_four_elections() {
    let limits = Config::parse(&Config::example(), none()).unwrap().effective_limits();
    assert_eq!(limits.session_timeout_min_ms, 2_000);
    let slow = edited("election_max_ms = 400", "election_max_ms = 900").unwrap();
    assert_eq!(slow.effective_limits().session_timeout_min_ms, 3_600);
    let never = edited("session_timeout_max_ms = 300000", "session_timeout_max_ms = 2000");
    assert!(never.is_ok(), "{never:?}");
    let text = Config::example().replace("session_timeout_max_ms = 300000", "session_timeout_max_ms = 3000");
    let text = text.replace("election_max_ms = 400", "election_max_ms = 900");
    assert!(matches!(Config::parse(&text, none()), Err(ConfigError::Value { key: "raft.election_max_ms", .. })));
}

#[test]
fn a_variable_sets_its_key() {
    let variables = [("CONCLAVE_LISTEN__CLIENT", "127.0.0.1:9"), ("CONCLAVE_DIR", "/x"), ("HOME", "/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse(&Config::example(), variables).unwrap();
    assert_eq!(config.listen.client.port(), 9);
    let typo = [("CONCLAVE_LISTEN__CLEINT".to_owned(), "1".to_owned())];
    assert!(matches!(Config::parse(&Config::example(), typo), Err(ConfigError::UnknownKey { .. })));
}
