//! The names that every variant has on the wire; a new variant does not compile until it is named here.

use crate::plugin::{Action, PluginState};
use crate::{
    Answer, ChangeKind, ClientMessage, ClusterRefusal, ClusterRequest, Condition, Consistency, Detail, Edit, Op,
    Permission, PushBack, Query, Refusal, Role, Scope, ServerMessage, SideMessage, SideRequest, Step, Value, Who,
};

/// The name of each variant, in a match that must be complete; and all the names.
macro_rules! variants {
    ($name:ident, $all:ident, $type:ty: $($pattern:pat => $text:literal),+ $(,)?) => {
        pub(super) fn $name(of: &$type) -> &'static str {
            match of { $($pattern => $text),+ }
        }
        pub(super) const $all: &[&str] = &[$($text),+];
    };
}

variants! { client, CLIENT, ClientMessage:
    ClientMessage::Hello(_) => "hello", ClientMessage::Open { .. } => "open", ClientMessage::Write { .. } => "write",
    ClientMessage::Once { .. } => "once", ClientMessage::Read { .. } => "read", ClientMessage::Watch { .. } => "watch",
    ClientMessage::Unwatch { .. } => "unwatch", ClientMessage::Heartbeat { .. } => "heartbeat",
}
variants! { server, SERVER, ServerMessage:
    ServerMessage::Welcome(_) => "welcome", ServerMessage::Goodbye { .. } => "goodbye",
    ServerMessage::Reply { .. } => "reply", ServerMessage::Completed { .. } => "completed", ServerMessage::Answer { .. } => "answer",
    ServerMessage::PushBack { .. } => "pushback", ServerMessage::Event { .. } => "event",
    ServerMessage::Resync { .. } => "resync",
}
variants! { op, OP, Op:
    Op::Create(_) => "create", Op::Set(_) => "set", Op::Delete(_) => "delete", Op::Multi(_) => "multi",
    Op::Update(_) => "update", Op::Prune(_) => "prune", Op::Acl(_) => "acl", Op::Call(_) => "call",
    Op::Cancel { .. } => "cancel", Op::Upload(_) => "upload", Op::Install(_) => "install", Op::Manage(_) => "manage",
    Op::End(_) => "end", Op::Close => "close",
}
variants! { step, STEP, Step:
    Step::Check(_) => "check", Step::Create(_) => "create", Step::Set(_) => "set", Step::Delete(_) => "delete",
    Step::Update(_) => "update", Step::Acl(_) => "acl",
}
variants! { edit, EDIT, Edit:
    Edit::Add(_) => "add", Edit::Min(_) => "min", Edit::Max(_) => "max", Edit::Append(_) => "append",
    Edit::Swap { .. } => "swap",
}
variants! { condition, CONDITION, Condition:
    Condition::Exists => "exists", Condition::Absent => "absent", Condition::Version(_) => "version",
    Condition::Owner(_) => "owner", Condition::Children { .. } => "children", Condition::Data(_) => "data",
    Condition::Created(_) => "created",
}
variants! { who, WHO, Who: Who::Anyone => "anyone", Who::Principal(_) => "principal" }
variants! { permission, PERMISSION, Permission:
    Permission::Create => "create", Permission::Read => "read", Permission::Write => "write",
    Permission::Delete => "delete", Permission::Admin => "admin",
}
variants! { query, QUERY, Query:
    Query::Get { .. } => "get", Query::Exists { .. } => "exists", Query::Children { .. } => "children",
    Query::Many { .. } => "many", Query::Count { .. } => "count", Query::Acl { .. } => "acl",
    Query::Owned { .. } => "owned", Query::Sessions { .. } => "sessions", Query::Call(_) => "call",
    Query::Plugins { .. } => "plugins", Query::Calls { .. } => "calls", Query::Status => "status",
}
variants! { detail, DETAIL, Detail: Detail::Names => "names", Detail::Stats => "stats", Detail::Data => "data" }
variants! { consistency, CONSISTENCY, Consistency:
    Consistency::Session => "session", Consistency::Linearizable => "linearizable", Consistency::Stale => "stale",
    Consistency::Within(_) => "within",
}
variants! { scope, SCOPE, Scope:
    Scope::Data => "data", Scope::Existence => "existence", Scope::Children => "children", Scope::Subtree => "subtree",
}
variants! { value, VALUE, Value:
    Value::Created { .. } => "created", Value::Set { .. } => "set", Value::Number { .. } => "number",
    Value::Deleted { .. } => "deleted", Value::Pruned { .. } => "pruned", Value::Acl { .. } => "acl",
    Value::Checked => "checked", Value::Multi(_) => "multi", Value::Called(_) => "called",
    Value::Parked => "parked", Value::Cancelled => "cancelled", Value::Uploaded => "uploaded",
    Value::Managed(_) => "managed", Value::Removed => "removed",
    Value::Opened { .. } => "opened", Value::Closed => "closed", Value::Ended => "ended",
}
variants! { answer, ANSWER, Answer:
    Answer::Znode { .. } => "znode", Answer::Exists(_) => "exists", Answer::Page(_) => "page",
    Answer::Many(_) => "many", Answer::Count(_) => "count", Answer::Acl { .. } => "acl",
    Answer::Owned { .. } => "owned", Answer::Sessions { .. } => "sessions", Answer::Called(_) => "called",
    Answer::Plugins(_) => "plugins", Answer::Calls { .. } => "calls", Answer::Status(_) => "status",
    Answer::Watching => "watching", Answer::Unwatched => "unwatched", Answer::Alive => "alive",
}
variants! { push_back, PUSH_BACK, PushBack:
    PushBack::Busy => "busy", PushBack::Behind { .. } => "behind", PushBack::NotReady => "not-ready",
    PushBack::Expected { .. } => "expected", PushBack::Until { .. } => "until",
}
variants! { role, ROLE, Role:
    Role::Leader => "leader", Role::Follower => "follower", Role::Learner => "learner",
    Role::Candidate => "candidate", Role::Quarantined => "quarantined", Role::Unreachable => "unreachable",
}
variants! { side_request, SIDE_REQUEST, SideRequest:
    SideRequest::Backup { .. } => "backup", SideRequest::Subtree { .. } => "subtree", SideRequest::Health => "health",
    SideRequest::PluginStats { .. } => "pluginstats", SideRequest::PluginLog { .. } => "pluginlog",
    SideRequest::Cluster(_) => "cluster",
}
variants! { cluster_request, CLUSTER_REQUEST, ClusterRequest:
    ClusterRequest::AddLearner { .. } => "add-learner", ClusterRequest::Promote { .. } => "promote",
    ClusterRequest::Remove { .. } => "remove", ClusterRequest::StepDown => "step-down",
}
variants! { side_message, SIDE_MESSAGE, SideMessage:
    SideMessage::Working => "working", SideMessage::Backup(_) => "backup", SideMessage::Subtree { .. } => "subtree",
    SideMessage::Znodes(_) => "znodes", SideMessage::Chunk { .. } => "chunk", SideMessage::End { .. } => "end",
    SideMessage::Health(_) => "health", SideMessage::PluginStats(_) => "pluginstats",
    SideMessage::PluginLog { .. } => "pluginlog", SideMessage::Done => "done", SideMessage::Declined(_) => "declined",
    SideMessage::Refused { .. } => "refused", SideMessage::Failed { .. } => "failed",
}
variants! { cluster_refusal, CLUSTER_REFUSAL, ClusterRefusal:
    ClusterRefusal::MemberExists { .. } => "member-exists", ClusterRefusal::NumberUsed { .. } => "number-used",
    ClusterRefusal::AddressTaken { .. } => "address-taken", ClusterRefusal::BadAddress { .. } => "bad-address",
    ClusterRefusal::NoMember { .. } => "no-member", ClusterRefusal::Behind { .. } => "behind",
    ClusterRefusal::NotAMember { .. } => "not-a-member", ClusterRefusal::Unreachable { .. } => "unreachable",
    ClusterRefusal::LastVoter { .. } => "last-voter", ClusterRefusal::NoMajority { .. } => "no-majority",
    ClusterRefusal::NoSuccessor => "no-successor", ClusterRefusal::Changing => "changing",
    ClusterRefusal::NoLeader => "no-leader",
}
variants! { kind, KIND, ChangeKind:
    ChangeKind::Created => "created", ChangeKind::Data => "data", ChangeKind::Deleted => "deleted",
    ChangeKind::Acl => "acl",
}
variants! { refusal, REFUSAL, Refusal:
    Refusal::NoZnode { .. } => "no-znode", Refusal::ZnodeExists { .. } => "znode-exists",
    Refusal::BadVersion { .. } => "bad-version", Refusal::NotEmpty { .. } => "not-empty",
    Refusal::OtherKind { .. } => "other-kind", Refusal::CheckFailed { .. } => "check-failed",
    Refusal::BadNumber { .. } => "bad-number", Refusal::LocksOut { .. } => "locks-out",
    Refusal::BadAclVersion { .. } => "bad-acl-version", Refusal::FutureZxid { .. } => "future-zxid",
    Refusal::OtherCluster { .. } => "other-cluster", Refusal::EphemeralParent { .. } => "ephemeral-parent",
    Refusal::NoSession { .. } => "no-session", Refusal::SessionOver { .. } => "session-over",
    Refusal::Fenced { .. } => "fenced", Refusal::NotAllowed { .. } => "not-allowed", Refusal::Limit { .. } => "limit",
    Refusal::DiskFull { .. } => "disk-full", Refusal::BadPath { .. } => "bad-path",
    Refusal::BadRequest { .. } => "bad-request", Refusal::Step { .. } => "step", Refusal::NoPlugin { .. } => "no-plugin",
    Refusal::NoProcedure { .. } => "no-procedure", Refusal::NoQuery { .. } => "no-query",
    Refusal::PluginExists { .. } => "plugin-exists", Refusal::BadArguments { .. } => "bad-arguments",
    Refusal::PluginDisabled { .. } => "plugin-disabled", Refusal::PluginLoop { .. } => "plugin-loop",
    Refusal::PluginUnfit { .. } => "plugin-unfit", Refusal::PluginNotAllowed { .. } => "plugin-not-allowed",
    Refusal::ReadOnly { .. } => "read-only", Refusal::Cancelled => "cancelled",
    Refusal::AlreadyDone { .. } => "already-done", Refusal::PluginRefused { .. } => "plugin-refused",
    Refusal::PluginFailed { .. } => "plugin-failed",
}
variants! { action, ACTION, Action:
    Action::Disable => "disable", Action::Enable => "enable", Action::Rollback => "rollback",
    Action::Abandon => "abandon", Action::Promote => "promote", Action::Remove => "remove",
    Action::Settings(_) => "settings", Action::Budgets(_) => "budgets",
}
variants! { state, STATE, PluginState:
    PluginState::Preparing => "preparing", PluginState::Active => "active", PluginState::Disabled => "disabled",
    PluginState::Suspended { .. } => "suspended",
}
