//! Builds the guests in `plugins/` into components, and tells whether the checked-in ones are what the sources make.
//!
//! The same sources and compiler give the same bytes in any directory. Another compiler gives others, so beside each
//! component lies a record of what it was made from: with that its age can be judged where no compiler is at hand.

mod toolchain;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use sha2::{Digest, Sha256};
use wasm_encoder::{ComponentSection, CustomSection};

use toolchain::{NO_TOOLCHAIN, Toolchain};

const TARGET: &str = "wasm32-unknown-unknown";
/// The custom section that the host reads the manifest from.
const SECTION: &str = "conclave:manifest";
/// What makes components of modules: its version is part of them, beside those of a guest's own dependencies.
const MAKER: &str = "wit-component";

/// Where the checked-in components lie.
const PREBUILT: &str = "plugins/prebuilt";

type Result<T> = std::result::Result<T, String>;

/// Builds every component and writes it with its record: into `plugins/prebuilt/`, or somewhere else.
pub(crate) fn build(into: Option<&Path>) -> Result<()> {
    let root = root()?;
    let into = into.map_or_else(|| root.join(PREBUILT), Path::to_path_buf);
    let toolchain = Toolchain::find()?.ok_or(NO_TOOLCHAIN)?;
    for guest in Guest::all(&root)? {
        let component = guest.component(&root, &toolchain)?;
        let record = Record::of(&guest.sources(&root)?, &component, &toolchain.name);
        let (wasm, beside) = guest.outputs(&into);
        write(&wasm, &component)?;
        write(&beside, record.to_text().as_bytes())?;
        println!("{}.wasm  {} KB  sha256:{}", guest.name, component.len().div_ceil(1024), record.component);
    }
    Ok(())
}

/// Compares every checked-in component with its sources, and its bytes where the compiler of then is at hand.
pub(crate) fn check() -> Result<()> {
    let root = root()?;
    let toolchain = Toolchain::find()?;
    let guests = Guest::all(&root)?;
    for guest in &guests {
        let (wasm, beside) = guest.outputs(&root.join(PREBUILT));
        let component = read(&wasm)?;
        let recorded = Record::parse(&String::from_utf8_lossy(&read(&beside)?))
            .ok_or_else(|| format!("{} is no record: run cargo xtask plugins", beside.display()))?;
        let name = &guest.name;
        let now = Record::of(&guest.sources(&root)?, &component, &recorded.toolchain);
        if now.sources != recorded.sources {
            return Err(format!("{name}.wasm was made from other sources than these: run cargo xtask plugins"));
        }
        if now.component != recorded.component {
            return Err(format!("{name}.wasm is not the component of its record: run cargo xtask plugins"));
        }
        match &toolchain {
            Some(toolchain) if toolchain.name == recorded.toolchain => {
                if guest.component(&root, toolchain)? != component {
                    return Err(format!("{name}.wasm is not what its sources make: run cargo xtask plugins"));
                }
                println!("{name}.wasm is what its sources make");
            }
            _ => println!("{name}.wasm has its sources' digest; its compiler is not here: {}", recorded.toolchain),
        }
    }
    no_strangers(&root, &guests)
}

/// Whether [`check`] can build every component again with the compiler that made it, and compare the bytes.
pub(crate) fn can_compare() -> Result<bool> {
    let root = root()?;
    let Some(toolchain) = Toolchain::find()? else { return Ok(false) };
    for guest in Guest::all(&root)? {
        let (_, beside) = guest.outputs(&root.join(PREBUILT));
        let record = Record::parse(&String::from_utf8_lossy(&read(&beside)?));
        if record.is_none_or(|record| record.toolchain != toolchain.name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every file in `prebuilt/` belongs to a guest.
fn no_strangers(root: &Path, guests: &[Guest]) -> Result<()> {
    for file in list(&root.join(PREBUILT))? {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !guests.iter().any(|guest| guest.name == stem) {
            return Err(format!("{} belongs to no plugin", file.display()));
        }
    }
    Ok(())
}

/// A crate in `plugins/` with a manifest.
struct Guest {
    name: String,
    folder: PathBuf,
}

impl Guest {
    fn all(root: &Path) -> Result<Vec<Self>> {
        let mut guests = Vec::new();
        for folder in list(&root.join("plugins"))? {
            if let Some(name) = folder.file_name().and_then(|name| name.to_str())
                && folder.join("plugin.toml").is_file()
            {
                guests.push(Self { name: name.to_owned(), folder: folder.clone() });
            }
        }
        Ok(guests)
    }

    /// The component, and the record beside it.
    fn outputs(&self, prebuilt: &Path) -> (PathBuf, PathBuf) {
        (prebuilt.join(format!("{}.wasm", self.name)), prebuilt.join(format!("{}.source", self.name)))
    }

    /// The crate's name.
    fn package(&self) -> Result<String> {
        let name = table(&self.folder, "Cargo.toml")?["package"]["name"].as_str().map(str::to_owned);
        name.ok_or_else(|| format!("{} has no package name", self.folder.display()))
    }

    /// The digest of all that decides about the component, except the compiler.
    fn sources(&self, root: &Path) -> Result<Sources> {
        let mut files = Vec::new();
        for folder in [&self.folder, &root.join("plugins/sdk"), &root.join("wit")] {
            walk(folder, &mut files)?;
        }
        let mut sources = Sources::default();
        for file in files {
            let name = file.strip_prefix(root).expect("it was found below the root");
            sources.add(&name.to_string_lossy().replace('\\', "/"), &read(&file)?);
        }
        sources.add("profile", table(root, "Cargo.toml")?["profile"]["plugin"].to_string().as_bytes());
        for package in locked(&table(root, "Cargo.lock")?, &[&self.package()?, MAKER]) {
            sources.add("package", package.as_bytes());
        }
        Ok(sources)
    }

    /// Compiles the guest and makes a component of it, the manifest inside.
    fn component(&self, root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
        let package = self.package()?;
        let target = root.join("target/plugins");
        let mut cargo = toolchain.cargo(root);
        cargo.args(["build", "--quiet", "--locked", "--profile", "plugin", "--target", TARGET, "--package", &package]);
        cargo.arg("--target-dir").arg(&target).current_dir(root);
        let status = cargo.status().map_err(|error| format!("cargo can't be run: {error}"))?;
        if !status.success() {
            return Err(format!("{package} can't be built"));
        }
        let module = target.join(TARGET).join("plugin").join(format!("{}.wasm", package.replace('-', "_")));
        let component = wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&read(&module)?)
            .and_then(wit_component::ComponentEncoder::encode)
            .map_err(|error| format!("{package} is no component: {error:#}"))?;
        self.only_our_world(&component)?;
        let manifest = read(&self.folder.join("plugin.toml"))?;
        let mut whole = component;
        CustomSection { name: SECTION.into(), data: (&manifest).into() }.append_to_component(&mut whole);
        no_machine_paths(&whole, root).map_err(|path| format!("{package} has a path of this machine in it: {path}"))?;
        Ok(whole)
    }
}

/// The interfaces that a manifest names: what its component exports.
fn exported(manifest: &toml::Table) -> BTreeSet<String> {
    let entries = |key: &str| manifest.get(key).and_then(toml::Value::as_array).into_iter().flatten();
    let of_triggers = entries("trigger").filter_map(|trigger| trigger.get("on")?.as_str());
    let mut names: BTreeSet<&str> = of_triggers.collect();
    names.extend(entries("procedure").next().map(|_| "procedures"));
    names.extend(entries("query").next().map(|_| "queries"));
    names.into_iter().map(str::to_owned).collect()
}

/// Names and versions of these packages and all that they depend on, in order.
fn locked(lock: &toml::Table, names: &[&str]) -> BTreeSet<String> {
    let packages: Vec<&toml::Value> =
        lock.get("package").and_then(toml::Value::as_array).into_iter().flatten().collect();
    let text = |package: &toml::Value, key: &str| {
        package.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    let mut found = BTreeSet::new();
    // What a dependency is called: its name, with its version where there are several.
    let mut wanted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = wanted.pop() {
        let (name, version) =
            name.split_once(' ').map_or((name.as_str(), None), |(name, version)| (name, Some(version)));
        for package in packages.iter().filter(|package| text(package, "name") == name) {
            let actual = text(package, "version");
            if version.is_none_or(|version| version == actual) && found.insert(format!("{name} {actual}")) {
                let below = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
                wanted.extend(below.filter_map(toml::Value::as_str).map(str::to_owned));
            }
        }
    }
    found
}

impl Guest {
    /// Refuses a component that imports anything else than the world of plugins, or does not export what its manifest names.
    fn only_our_world(&self, component: &[u8]) -> Result<()> {
        let name = &self.name;
        let decoded = wit_component::decode(component).map_err(|error| format!("{name} can't be read: {error:#}"))?;
        let wit_component::DecodedWasm::Component(resolve, world) = decoded else {
            return Err(format!("{name} is no component"));
        };
        let plain = |interface: String| {
            let ours = interface.strip_prefix("conclave:plugin/").and_then(|rest| rest.split('@').next());
            ours.map(str::to_owned)
                .ok_or_else(|| format!("{name} imports or exports {interface}, which is none of our world"))
        };
        let world = &resolve.worlds[world];
        for import in world.imports.keys() {
            plain(resolve.name_world_key(import))?;
        }
        let exports = world.exports.keys().map(|export| plain(resolve.name_world_key(export)));
        let exports = exports.collect::<Result<BTreeSet<String>>>()?;
        let named = exported(&table(&self.folder, "plugin.toml")?);
        if exports == named {
            return Ok(());
        }
        Err(format!("{name} exports {exports:?}, its plugin.toml names {named:?}"))
    }
}

/// The hash of named pieces.
#[derive(Default)]
struct Sources(Sha256);

impl Sources {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    fn digest(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

/// What lies beside a component: three lines, a word and a value each.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    sources: String,
    component: String,
    toolchain: String,
}

impl Record {
    fn of(sources: &Sources, component: &[u8], toolchain: &str) -> Self {
        let component = hex(&Sha256::digest(component));
        Self { sources: sources.digest(), component, toolchain: toolchain.to_owned() }
    }

    fn to_text(&self) -> String {
        format!("sources {}\ncomponent {}\ntoolchain {}\n", self.sources, self.component, self.toolchain)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |word: &str| Some(text.lines().find_map(|line| line.strip_prefix(word))?.trim().to_owned());
        Some(Self { sources: value("sources ")?, component: value("component ")?, toolchain: value("toolchain ")? })
    }
}

/// Refuses bytes that hold a directory of this machine.
fn no_machine_paths(bytes: &[u8], root: &Path) -> std::result::Result<(), String> {
    for path in [root.to_path_buf(), cargo_home(), PathBuf::from("/usr/lib/rustlib"), PathBuf::from("/usr/src")] {
        let path = path.to_string_lossy().into_owned();
        if path.len() > 1 && bytes.windows(path.len()).any(|window| window == path.as_bytes()) {
            return Err(path);
        }
    }
    Ok(())
}

/// The top of the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = here.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    root.ok_or_else(|| "run me as cargo xtask".to_owned())
}

fn cargo_home() -> PathBuf {
    let home = || env::home_dir().unwrap_or_default().join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

fn table(folder: &Path, name: &str) -> Result<toml::Table> {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.parse().map_err(|error| format!("{}: {error}", path.display()))
}

/// All files below a folder, sorted.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in list(folder)? {
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record::of(&Sources::default(), b"wasm", "rustc 1.2.3 (a b), its library from source");
        assert_eq!(Record::parse(&record.to_text()).unwrap(), record);
        assert_eq!(Record::parse("sources a\ncomponent b\n"), None);
    }

    #[test]
    fn sources_differ_when_bytes_move_from_one_piece_to_the_next() {
        let digest = |pieces: [(&str, &str); 2]| {
            let mut sources = Sources::default();
            for (name, bytes) in pieces {
                sources.add(name, bytes.as_bytes());
            }
            sources.digest()
        };
        assert_ne!(digest([("a", "bc"), ("d", "")]), digest([("a", "b"), ("cd", "")]));
    }

    #[test]
    fn what_a_guest_depends_on_however_far_down_is_part_of_its_sources() {
        let lock = r#"
            package = [
                { name = "guest", version = "1.0.0", dependencies = ["a", "b 2.0.0"] },
                { name = "a", version = "1.1.0", dependencies = ["guest"] },
                { name = "b", version = "1.0.0" },
                { name = "b", version = "2.0.0", dependencies = ["c"] },
                { name = "c", version = "3.0.0" },
                { name = "other", version = "1.0.0" },
            ]"#;
        let locked: Vec<String> = locked(&lock.parse().unwrap(), &["guest"]).into_iter().collect();
        assert_eq!(locked, ["a 1.1.0", "b 2.0.0", "c 3.0.0", "guest 1.0.0"]);
    }

    #[test]
    fn a_manifest_says_what_a_component_exports() {
        let manifest = r#"
            trigger = [{ on = "before" }, { on = "timer" }, { on = "before" }]
            query = [{ name = "x" }]"#;
        let exported: Vec<String> = exported(&manifest.parse().unwrap()).into_iter().collect();
        assert_eq!(exported, ["before", "queries", "timer"]);
    }
}
