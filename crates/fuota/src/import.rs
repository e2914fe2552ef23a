//! Many devices and users at once: every row is checked before the first is added, and all are
//! added in one commit, or none.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Service,
    accounts::{self, MAX_USERS, PasswordHash, User},
    db::Op,
    engine::Engine,
    fleet::events::Change,
    registration::{Registration, invalid},
    requests::{self, Request},
    transfer::unix_now,
    views::{
        Actor, Import, ImportError, Imported, ImportedDevice, ImportedUser, RowProblem,
        ServiceError, UserRole,
    },
};

/// Rows of one import. The longest commit holds up what else is written for some seconds.
const MAX_ROWS: usize = 100_000;

impl Service {
    /// Adds devices and users, all or none, also when the process dies. Sessions that use one of
    /// the names without its proof are ended. A dry run only says whether all could be added. The
    /// second value says whether they are new, and not of an earlier request with this key.
    ///
    /// # Errors
    /// [`ImportError::Rows`] with every row that cannot be added; [`ImportError::Service`].
    pub async fn import(
        &self,
        import: Import,
        dry_run: bool,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(Imported, bool), ImportError> {
        if import.devices.len() + import.users.len() > MAX_ROWS {
            let problem = format!("one import has at most {MAX_ROWS} rows; make it several");
            return Err(invalid("devices", problem).into());
        }
        let engine = &self.0;
        let _changing = engine.accounts.change().await;
        if dry_run {
            self.check(&import)?;
            return Ok((Imported::default(), false));
        }
        let request = engine.requests.open(&engine.key, "import", key, &import)?;
        if request.is_done {
            return Ok((self.imported_before(import, &request)?, false));
        }
        let users = self.check(&import)?;
        let (batch, devices) = self.registrations(import, &users, &request)?;
        let mut names: HashSet<Arc<str>> = batch.iter().map(|one| Arc::clone(&one.id)).collect();
        names.extend(users.iter().map(|user| Arc::clone(&user.name)));
        engine.endings.over(&names.iter().map(|name| &**name).collect::<Vec<_>>()).await?;
        let mut ops: Vec<_> = users.iter().map(|user| Op::User(user.row())).collect();
        let detail = format!("{} devices, {} users", devices.len(), users.len());
        ops.push(Engine::audit_by(actor, "import", "imported", Some(detail)));
        ops.extend(request.op());
        engine.register(batch, ops).await?;
        engine.requests.done(request);
        let imported = Imported { devices, users: users.len() };
        engine.accounts.replace(|all| {
            all.extend(users.into_iter().map(|user| (Arc::clone(&user.name), user)));
        });
        engine.end_accounts(names, "log in with the account's token or password");
        let (devices, users) = (imported.devices.len(), imported.users);
        engine.events.tell(Change::Import { at: unix_now(), devices, users });
        self.look_again().await;
        Ok((imported, true))
    }

    /// What an earlier request with the same key gave, as far as all of it is still there.
    fn imported_before(&self, import: Import, request: &Request) -> Result<Imported, ServiceError> {
        let mut devices = Vec::with_capacity(import.devices.len());
        for device in import.devices {
            self.0.registered(&device.id).ok_or_else(|| requests::gone("a device"))?;
            let made = device.token.is_none().then(|| request.secret(&self.0.key, &device.id));
            devices.push(ImportedDevice { id: device.id, token: made.transpose()? });
        }
        let there = |user: &ImportedUser| self.0.accounts.get(&user.name).is_some();
        match import.users.iter().all(there) {
            true => Ok(Imported { devices, users: import.users.len() }),
            false => Err(requests::gone("a user")),
        }
    }

    /// The users of an import, where every row of it can be added.
    fn check(&self, import: &Import) -> Result<Vec<Arc<User>>, ImportError> {
        let mut problems = Vec::new();
        let mut names = HashMap::new();
        let mut tokens = HashSet::new();
        let mut twice = |name: &str, list: &'static str, row: usize| {
            names.insert(name.to_owned(), (list, row)).map(|(list, row)| {
                ServiceError::Conflict(format!("{name} is also {list}[{row}] of this import"))
            })
        };
        for (row, device) in import.devices.iter().enumerate() {
            let token = device.token.as_deref();
            let problem = self.check_device(device).err().or_else(|| {
                let same = token.is_some_and(|token| !tokens.insert(token));
                same.then(|| ServiceError::Conflict("its token stands there twice".into()))
            });
            if let Some(problem) = problem.or_else(|| twice(&device.id, "devices", row)) {
                problems.push(RowProblem { list: "devices", row, detail: problem.to_string() });
            }
        }
        let room = MAX_USERS.saturating_sub(self.0.accounts.count());
        let mut users = Vec::with_capacity(import.users.len());
        for (row, user) in import.users.iter().enumerate() {
            let checked = self.check_user(user).and_then(|checked| match row < room {
                true => twice(&user.name, "users", row).map_or(Ok(checked), Err),
                false => Err(ServiceError::Conflict(format!("there may be {MAX_USERS} users"))),
            });
            match checked {
                Ok(user) => users.push(Arc::new(user)),
                Err(problem) => {
                    problems.push(RowProblem { list: "users", row, detail: problem.to_string() });
                }
            }
        }
        match problems.is_empty() {
            true => Ok(users),
            false => Err(ImportError::Rows(problems)),
        }
    }

    fn check_user(&self, new: &ImportedUser) -> Result<User, ServiceError> {
        accounts::check_name(&new.name)?;
        self.0.name_is_free(&new.name)?;
        let hash = PasswordHash::from_mosquitto(&new.password_hash.0)
            .map_err(|problem| invalid("password_hash", problem.into()))?;
        Ok(User::new(new.name.as_str().into(), new.role, hash, unix_now()))
    }

    /// What is to be registered, and what to show of it.
    fn registrations(
        &self,
        import: Import,
        users: &[Arc<User>],
        request: &Request,
    ) -> Result<(Vec<Registration>, Vec<ImportedDevice>), ServiceError> {
        let mut batch = Vec::with_capacity(import.devices.len());
        let mut shown = Vec::with_capacity(import.devices.len());
        for mut device in import.devices {
            let (token, made) = match device.token.take() {
                Some(token) => (token, None),
                None => {
                    let made = request.secret(&self.0.key, &device.id)?;
                    (made.clone(), Some(made))
                }
            };
            shown.push(ImportedDevice { id: device.id.clone(), token: made });
            batch.push(Registration::new(device, self.0.key.token(token.as_bytes())));
        }
        let devices = users.iter().filter(|user| user.role == UserRole::Device);
        batch.extend(devices.map(|user| Registration::of_user(&user.name)));
        Ok((batch, shown))
    }
}
