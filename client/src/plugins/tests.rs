//! What has come of an installation, by what is known of the plugin.

use conclave_protocol::plugin::{ComponentDigest, Manifest, Next, Version};

use super::*;

fn version(digest: u8) -> Version {
    let manifest = Manifest { name: "p".into(), version: "1".into(), ..Manifest::default() };
    Version { digest: ComponentDigest([digest; 32]), component_bytes: 1, manifest, allowed: Vec::new() }
}

fn info(state: PluginState, present: u8, next: Option<(u8, bool)>, rejected: Option<&str>) -> PluginInfo {
    PluginInfo {
        name: "p".into(),
        state,
        version: version(present),
        next: next.map(|(digest, shadow)| Next { version: version(digest), shadow }),
        previous: None,
        settings: Bytes::new(),
        budgets: BudgetSettings::default(),
        installer: "me".into(),
        activated: None,
        parked: 0,
        rejected: rejected.map(str::to_owned),
    }
}

#[test]
fn an_installation_is_over_when_its_version_is_active_or_rejected() {
    use PluginState::{Active, Disabled, Preparing};
    let over = |info: PluginInfo| settled(&info, ComponentDigest([1; 32]));
    for (state, present, next, rejected, expected) in [
        (Preparing, 1, None, None, None),
        (Active, 1, None, None, Some(Ok(()))),
        // An upgrade of a disabled one.
        (Disabled, 1, None, None, Some(Ok(()))),
        (Active, 0, Some((1, false)), None, None),
        (Active, 0, Some((1, true)), None, Some(Ok(()))),
        (Disabled, 1, None, Some("member 2: no"), Some(Err("member 2: no".to_owned()))),
        (Active, 0, None, Some("member 2: no"), Some(Err("member 2: no".to_owned()))),
        (Active, 2, None, None, Some(Err("another version was installed meanwhile".to_owned()))),
    ] {
        assert_eq!(over(info(state.clone(), present, next, rejected)), expected, "{state:?} {present} {next:?}");
    }
}

#[test]
fn a_components_digest_is_its_sha_256() {
    let digest = install::digest(b"abc").to_string();
    assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
