//! Tests that the samples leave nothing out, and that what is a code in the program is the name on the wire.

use super::{names, plugins, samples, side};
use crate::{ClientMessage, Edit, Op, Permission, Refusal, ServerMessage, SideRequest, codec};

/// Panics unless each of these names is the name of a sample.
fn all_there(what: &str, all: &[&str], there: impl IntoIterator<Item = &'static str>) {
    let there: Vec<&str> = there.into_iter().collect();
    for name in all {
        assert!(there.contains(name), "there is no sample of the {what} {name}");
    }
}

#[test]
fn there_is_a_sample_of_every_message() {
    let (clients, members) = (samples::client_messages(), samples::server_messages());
    all_there("client message", names::CLIENT, clients.iter().map(|(_, one)| names::client(one)));
    all_there("member's message", names::SERVER, members.iter().map(|(_, one)| names::server(one)));
    let requests = side::side_requests();
    all_there("side request", names::SIDE_REQUEST, requests.iter().map(|(_, one)| names::side_request(one)));
    let changes = requests.iter().filter_map(|(_, one)| match one {
        SideRequest::Cluster(change) => Some(names::cluster_request(change)),
        _ => None,
    });
    all_there("change of the cluster", names::CLUSTER_REQUEST, changes);
    all_there(
        "side message",
        names::SIDE_MESSAGE,
        side::side_messages().iter().map(|(_, one)| names::side_message(one)),
    );
    all_there("cluster's refusal", names::CLUSTER_REFUSAL, side::cluster_refusals().iter().map(names::cluster_refusal));
}

#[test]
fn there_is_a_sample_of_everything_that_is_asked() {
    let ops = samples::ops();
    all_there("operation", names::OP, ops.iter().map(|(_, one)| names::op(one)));
    let updates = ops.iter().filter_map(|(_, one)| match one {
        Op::Update(update) => Some(&update.edit),
        _ => None,
    });
    let edits: Vec<&Edit> = updates.collect();
    all_there("edit", names::EDIT, edits.into_iter().map(names::edit));
    all_there("step", names::STEP, samples::steps().iter().map(names::step));
    all_there("condition", names::CONDITION, samples::conditions().iter().map(names::condition));
    all_there("query", names::QUERY, samples::queries().iter().map(names::query));
    let messages = samples::client_messages();
    let reads = messages.iter().filter_map(|(_, one)| match one {
        ClientMessage::Read { consistency, .. } => Some(names::consistency(consistency)),
        _ => None,
    });
    all_there("consistency", names::CONSISTENCY, reads);
    all_there("thing to do to a plugin", names::ACTION, plugins::actions().iter().map(names::action));
    let details = samples::queries().into_iter().filter_map(|one| match one {
        crate::Query::Children { detail, .. } => Some(names::detail(&detail)),
        _ => None,
    });
    all_there("detail", names::DETAIL, details);
    let scopes = messages.iter().filter_map(|(_, one)| match one {
        ClientMessage::Watch { watch, .. } => Some(names::scope(&watch.scope)),
        _ => None,
    });
    all_there("scope", names::SCOPE, scopes);
    let lists = ops.iter().filter_map(|(_, one)| match one {
        Op::Acl(set) => Some(&set.acl),
        _ => None,
    });
    all_there("whom a grant is for", names::WHO, lists.flat_map(|list| &list.0).map(|grant| names::who(&grant.who)));
}

#[test]
fn there_is_a_sample_of_everything_that_is_answered() {
    all_there("value", names::VALUE, samples::values().iter().map(names::value));
    all_there("answer", names::ANSWER, samples::answers().iter().map(names::answer));
    all_there("refusal", names::REFUSAL, samples::refusals().iter().map(names::refusal));
    all_there("role", names::ROLE, samples::status().members.iter().map(|member| names::role(&member.role)));
    all_there("state of a plugin", names::STATE, plugins::states().iter().map(names::state));
    let messages = samples::server_messages();
    let push_backs = messages.iter().filter_map(|(_, one)| match one {
        ServerMessage::PushBack { why, .. } => Some(names::push_back(why)),
        _ => None,
    });
    all_there("push-back", names::PUSH_BACK, push_backs);
    let changes = messages.iter().filter_map(|(_, one)| match one {
        ServerMessage::Event { changes, .. } => Some(changes),
        _ => None,
    });
    all_there("change", names::KIND, changes.flatten().map(|change| names::kind(&change.kind)));
}

#[test]
fn a_refusals_code_is_its_name_on_the_wire() {
    for one in samples::refusals() {
        match &one {
            Refusal::Step { cause, .. } => assert_eq!(one.code(), cause.code(), "a step's is its cause's"),
            _ => assert_eq!(one.code(), names::refusal(&one)),
        }
        let bytes = codec::encode(&one);
        let name = names::refusal(&one).as_bytes();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{one:?}");
    }
}

#[test]
fn a_clusters_refusals_code_is_its_name_on_the_wire() {
    for one in side::cluster_refusals() {
        assert_eq!(one.code(), names::cluster_refusal(&one));
        let bytes = codec::encode(&one);
        let name = one.code().as_bytes();
        assert!(bytes.windows(name.len()).any(|part| part == name), "{one:?}");
    }
}

#[test]
fn a_permissions_word_is_its_name_on_the_wire() {
    assert_eq!(Permission::ALL.map(|one| names::permission(&one)), names::PERMISSION);
    for one in Permission::ALL {
        assert_eq!(one.to_string(), names::permission(&one));
        assert_eq!(codec::decode::<Permission>(&codec::encode(&names::permission(&one))).unwrap(), one);
    }
}
