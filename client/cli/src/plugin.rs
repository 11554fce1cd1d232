//! `plugin`: installing, listing and managing plugins, who waits in them, what they cost and say.

mod allow;
pub(crate) mod budget;
mod show;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use conclave_client::plugin::{BudgetSettings, Manifest, PluginInfo};
use conclave_client::{Client, Doubt, Error, Install, InstallStep, Outcome, manifest};
use serde_json::{Value, json};

use crate::acl::dialect;
use crate::args;
use crate::failure::{DONE, Failure, REFUSED, UNKNOWN, While, span};
use crate::out::{Out, Progress};
use allow::Allowed;
pub use allow::in_words;

pub(crate) async fn run(client: &Client, command: args::Plugin, out: Out) -> Result<u8, Failure> {
    let plugins = client.plugins();
    match command {
        args::Plugin::Install(args) => {
            let component = read(&args.file)?;
            let allowed = allowed(&args.file, &component, &args.terms)?;
            let mut install = plugins.install(component);
            if let Some(name) = &args.name {
                install = install.name(name);
            }
            install_as(client, install, allowed, &args.terms, out).await?;
        }
        args::Plugin::Upgrade(args) => {
            let component = read(&args.file)?;
            let allowed = allowed(&args.file, &component, &args.terms)?;
            let mut upgrade = plugins.upgrade(&args.name, component);
            if args.shadow {
                upgrade = upgrade.shadow();
            }
            install_as(client, upgrade, allowed, &args.terms, out).await?;
        }
        args::Plugin::List => {
            let all = plugins.list().await.reading()?;
            let shown: Vec<Value> = all.iter().map(conclave_script::plugins::info).collect();
            out.show(&json!({ "plugins": shown }), |_| show::list(&all))?;
        }
        args::Plugin::Show(args) => {
            let info = plugins.get(&args.name).await.reading()?;
            out.show(&conclave_script::plugins::info(&info), |_| show::one(&info))?;
        }
        args::Plugin::Logs(args) => logs(client, &args, out).await?,
        args::Plugin::Stats(args) => {
            let stats = plugins.stats(args.name.as_deref()).await.reading()?;
            let shown: Vec<Value> = stats.iter().map(conclave_script::plugins::stats).collect();
            out.show(&json!({ "stats": shown }), |_| show::stats(&stats))?;
        }
        args::Plugin::Calls(args) => {
            let names = match args.name {
                Some(name) => vec![name],
                None => plugins.list().await.reading()?.into_iter().map(|info| info.name).collect(),
            };
            let mut calls = Vec::new();
            for name in names {
                calls.append(&mut plugins.calls(name).await.reading()?);
            }
            let dialect = dialect(client);
            let shown: Vec<Value> = calls.iter().map(conclave_script::plugins::call).collect();
            out.show(&json!({ "calls": shown }), |_| show::calls(&dialect, &calls))?;
        }
        args::Plugin::Disable(args) => done(out, "disabled", plugins.disable(args.name).await)?,
        args::Plugin::Enable(args) => done(out, "enabled", plugins.enable(args.name).await)?,
        args::Plugin::Rollback(args) => done(out, "rolled back", plugins.rollback(args.name).await)?,
        args::Plugin::Promote(args) => done(out, "promoted", plugins.promote(args.name).await)?,
        args::Plugin::Abandon(args) => done(out, "abandoned", plugins.abandon(args.name).await)?,
        args::Plugin::Remove(args) => {
            plugins.remove(&args.name).await.writing()?;
            out.show(&json!({ "done": "removed", "name": args.name }), |_| format!("removed {}", args.name))?;
        }
        args::Plugin::Set(args) => set(client, args, out).await?,
    }
    Ok(DONE)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::file(file, error))
}

/// What the component is allowed: as the command line says, or somebody at the terminal.
fn allowed(file: &Path, component: &[u8], terms: &args::Terms) -> Result<Allowed, Failure> {
    // Before anything is asked: what makes no sense is said at once.
    budget::change(BudgetSettings::default(), &terms.budget)?;
    let manifest: Manifest = manifest(component).map_err(|why| Failure::Refused {
        code: "plugin-unfit",
        text: format!("{}: {why}. Nothing was changed.", file.display()),
    })?;
    match allow::said(&terms.allow, &manifest)? {
        Some(allowed) => Ok(allowed),
        None if manifest.needs.is_empty() => Ok(Allowed::Asked),
        None => allow::ask(&manifest),
    }
}

async fn install_as(
    client: &Client,
    mut install: Install,
    allowed: Allowed,
    terms: &args::Terms,
    out: Out,
) -> Result<(), Failure> {
    install = match allowed {
        Allowed::Asked => install.allow_asked(),
        Allowed::These(needs) => install.allow(needs),
    };
    if let Some(file) = &terms.settings {
        install = install.settings(settings(file)?);
    }
    if !terms.budget.is_empty() {
        install = install.budgets(budget::change(BudgetSettings::default(), &terms.budget)?);
    }
    let progress = Arc::new(Mutex::new(Progress::new(out)));
    let told = Arc::clone(&progress);
    let install = install.within(terms.wait).progress(move |step| {
        told.lock().unwrap_or_else(PoisonError::into_inner).show(|| match step {
            InstallStep::Uploaded { bytes, of } => format!("uploaded {} of {} KiB", bytes >> 10, of.div_ceil(1024)),
            _ => "installed; the members compile it".to_owned(),
        });
    });
    let installed = install.await;
    // The line of the progress goes before anything else is said.
    drop(progress);
    let info = installed.map_err(|error| failed(error, terms))?;
    let members = client.status().await.map_or(0, |status| status.members.len());
    out.show(&conclave_script::plugins::info(&info), |_| show::active(&info, members))
}

fn failed(error: Error, terms: &args::Terms) -> Failure {
    match error {
        Error::Unknown { why: Doubt::Activation } => {
            let text = format!(
                "outcome unknown: it is installed, and was not active within {}. It becomes so when a majority, and every \
                 voter that is reached, has it ready. `conclave plugin show` tells; `abandon` or `remove` gives it up.",
                span(terms.wait)
            );
            Failure::Exact { code: "outcome-unknown", exit: UNKNOWN, outcome: Outcome::Unknown, text }
        }
        other => not_active(other),
    }
}

fn not_active(error: Error) -> Failure {
    match error {
        Error::Rejected { plugin, why } => {
            let text = format!(
                "refused: rejected: a member can't run {plugin}: {}. What was active before is so still.",
                why.trim_end_matches('.')
            );
            Failure::Exact { code: "rejected", exit: REFUSED, outcome: Outcome::NotApplied, text }
        }
        other => other.writing(),
    }
}

fn settings(file: &Path) -> Result<Vec<u8>, Failure> {
    let data = args::Data { file: Some(file.to_owned()), ..args::Data::default() };
    Ok(crate::data::read(&data)?.unwrap_or_default())
}

fn done(out: Out, done: &str, info: conclave_client::Result<PluginInfo>) -> Result<(), Failure> {
    let info = info.map_err(not_active)?;
    let mut value = conclave_script::plugins::info(&info);
    value["done"] = done.into();
    out.show(&value, |_| show::done(done, &info))
}

async fn set(client: &Client, args: args::SetPlugin, out: Out) -> Result<(), Failure> {
    let plugins = client.plugins();
    let mut last = None;
    if let Some(file) = &args.settings {
        last = Some(plugins.settings(&args.name, settings(file)?).await);
    }
    if !args.budget.is_empty() && !matches!(last, Some(Err(_))) {
        // Before anything is asked: what makes no sense is said at once.
        budget::change(BudgetSettings::default(), &args.budget)?;
        let present = plugins.get(&args.name).await.reading()?.budgets;
        last = Some(plugins.budgets(&args.name, budget::change(present, &args.budget)?).await);
    }
    match last {
        Some(info) => done(out, "set", info),
        None => Err(Failure::Usage("--settings or --budget says what to set".to_owned())),
    }
}

async fn logs(client: &Client, args: &args::Logs, out: Out) -> Result<(), Failure> {
    let mut log = client.plugins().log(&args.name);
    let say = |line| out.show(&conclave_script::plugins::log_line(&line), |_| show::log_line(&line));
    while let Some(line) = log.present().await.reading()? {
        say(line)?;
    }
    if !args.follow {
        return Ok(());
    }
    let mut signals = crate::supervise::Signals::listen().map_err(crate::lock::failed)?;
    loop {
        tokio::select! {
            line = log.next() => say(line.reading()?)?,
            _ = signals.next() => return Ok(()),
            () = crate::out::reader_gone() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
