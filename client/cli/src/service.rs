//! `service`: instances that are registered, listed, watched and drained.

use std::sync::Arc;

use conclave_client::{Client, Fence, Outcome};
use conclave_discovery::{Discovery, Error, Found, Instance, Instances, Status};
use serde_json::{Value, json};

use crate::args;
use crate::failure::{DONE, Failure, UNKNOWN, While};
use crate::hold::GRACE;
use crate::lock::{self, LOST, cannot_run};
use crate::out::{Out, reader_gone, table};
use crate::supervise::{self, Ended, Signals};

pub(crate) async fn run(client: &Client, command: args::Service, out: Out) -> Result<u8, Failure> {
    match command {
        args::Service::Register(args) => register(client, args, out).await,
        args::Service::List { service: Some(service), at } => {
            let view = Discovery::new(client, &at).map_err(unseen)?.view(&service).await.map_err(unseen)?;
            let seen = view.instances();
            out.show(&shown(&service, &seen), |_| text(&service, &seen))?;
            Ok(DONE)
        }
        args::Service::List { service: None, at } => {
            let services = Discovery::new(client, &at).map_err(unseen)?.services().await.map_err(unseen)?;
            let all: Vec<Value> =
                services.iter().map(|one| json!({ "service": one.name, "instances": one.instances })).collect();
            let rows: Vec<Vec<String>> =
                services.iter().map(|one| vec![one.name.clone(), one.instances.to_string()]).collect();
            out.show(&json!({ "services": all }), |_| table(&["SERVICE", "INSTANCES"], &[false, true], &rows))?;
            Ok(DONE)
        }
        args::Service::Watch { service, at } => watch(client, &service, &at, out).await,
        args::Service::Drain { service, id, at } => drain(client, &service, &id, &at, out).await,
    }
}

async fn register(client: &Client, args: args::Register, out: Out) -> Result<u8, Failure> {
    let discovery = Discovery::new(client, &args.at).map_err(failure)?;
    let mut instance = Instance::new(&args.service, &args.address).weight(args.weight);
    if let Some(id) = args.id {
        instance = instance.id(id);
    }
    if let Some(release) = args.release {
        instance = instance.version(release);
    }
    if let Some(region) = args.region {
        instance = instance.region(region);
    }
    if let Some(zone) = args.zone {
        instance = instance.zone(zone);
    }
    instance = args.tags.into_iter().fold(instance, Instance::tag);
    instance = args.metadata.into_iter().fold(instance, |instance, (key, value)| instance.metadata(key, value));
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let registration = discovery.register(instance).await.map_err(failure)?;
    let path = registration.path().clone();
    if args.command.is_empty() {
        out.note(format_args!("{path} is registered until Ctrl-C"));
        let _ = signals.next().await;
        registration.deregister().await.map_err(failure)?;
        return Ok(DONE);
    }
    // A registration comes back with another session, and the command goes on: it is ended with this session all the same,
    // as nobody could end it in time otherwise.
    let held = registration.client().unwrap_or_else(|| client.clone());
    let session = held.session().await.writing()?;
    let fence: Vec<(&'static str, String)> =
        registration.fence().iter().flat_map(|fence: &Fence| lock::variables(fence)).collect();
    let ended = supervise::run(&session, &args.command, &fence, GRACE, &mut signals).await;
    let gone = registration.deregister().await;
    match (ended, gone) {
        (Err(error), _) => Err(cannot_run(&args.command, &error)),
        (Ok(Ended::Lost), _) => Err(Failure::Exact {
            code: "session-over",
            exit: LOST,
            outcome: Outcome::Unknown,
            text: format!(
                "lost: the session of {path} is over, or nearly: no member was heard in time. COMMAND was ended."
            ),
        }),
        (Ok(Ended::Exited(code)), Ok(())) => Ok(code),
        (Ok(Ended::Exited(code)), Err(error)) => {
            out.note(format_args!("{path} was not taken away in good order: {error}"));
            Ok(code)
        }
    }
}

async fn watch(client: &Client, service: &str, at: &str, out: Out) -> Result<u8, Failure> {
    let view = Discovery::new(client, at).map_err(unseen)?.view(service).await.map_err(unseen)?;
    let mut signals = Signals::listen().map_err(lock::failed)?;
    let mut seen = view.instances();
    loop {
        out.show(&shown(service, &seen), |_| format!("{}\n", text(service, &seen)))?;
        seen = tokio::select! {
            _ = signals.next() => return Ok(DONE),
            () = reader_gone() => return Ok(DONE),
            changed = view.changed(&seen) => changed.map_err(unseen)?,
        };
    }
}

/// Only the status changes: what else the instance says of itself stays as it is, also what this version does not know.
async fn drain(client: &Client, service: &str, id: &str, at: &str, out: Out) -> Result<u8, Failure> {
    let znode = client.at(format!("{}/{service}/{id}", at.trim_end_matches('/')));
    loop {
        let now = znode.get().await.reading()?;
        let mut instance: Value = serde_json::from_slice(&now.data).map_err(|error| Failure::Refused {
            code: "no-instance",
            text: format!("{service} {id} is no instance: {error}. Nothing was changed."),
        })?;
        instance["status"] = json!(Status::Draining);
        let data = serde_json::to_vec(&instance).map_err(|error| Failure::Output(error.into()))?;
        match znode.set(data).if_version(now.stat.version).await {
            Ok(_) => break,
            Err(conclave_client::Error::Refused(conclave_client::Refusal::BadVersion { .. })) => {}
            Err(error) => return Err(error.writing()),
        }
    }
    out.show(&json!({ "done": "draining", "service": service, "id": id }), |_| format!("draining  {service} {id}"))?;
    Ok(DONE)
}

fn shown(service: &str, seen: &Instances) -> Value {
    let one = |found: &Arc<Found>| {
        let mut value = json!(found.instance);
        value["healthy"] = json!(found.is_healthy);
        value
    };
    let instances: Vec<Value> = seen.all.iter().map(one).collect();
    json!({ "service": service, "zxid": seen.zxid.0, "instances": instances })
}

fn text(service: &str, seen: &Instances) -> String {
    if seen.all.is_empty() {
        return format!("{service} has no instances\n");
    }
    let row = |found: &Arc<Found>| {
        let instance = &found.instance;
        let place = [instance.region.as_deref(), instance.zone.as_deref()].into_iter().flatten().collect::<Vec<_>>();
        vec![
            instance.id.clone(),
            instance.address.clone(),
            instance.status.to_string(),
            instance.weight.to_string(),
            instance.version.clone().unwrap_or_default(),
            place.join("/"),
            instance.tags.join(","),
        ]
    };
    let rows: Vec<Vec<String>> = seen.all.iter().map(row).collect();
    let heads = ["ID", "ADDRESS", "STATUS", "WEIGHT", "VERSION", "PLACE", "TAGS"];
    table(&heads, &[false, false, false, true, false, false, false], &rows)
}

/// Of a command that only reads.
fn unseen(error: Error) -> Failure {
    match error {
        Error::Client(error) => error.reading(),
        other => failure(other),
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(error) => error.writing(),
        other if other.outcome() == Outcome::Unknown => Failure::Exact {
            code: "outcome-unknown",
            exit: UNKNOWN,
            outcome: Outcome::Unknown,
            text: format!("outcome unknown: {other}. `conclave service list` tells."),
        },
        other => Failure::Refused { code: "service-failed", text: format!("{other}.") },
    }
}
