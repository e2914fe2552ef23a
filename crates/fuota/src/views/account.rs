//! Users, tokens, and the import of many as the service shows and takes them.

use serde::{Deserialize, Serialize};

use super::{NewDevice, ServiceError};

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    /// A device that logs in with a password; its id is the user's name.
    Device,
    /// A program that reads and writes messages: a dashboard, a historian.
    Service,
    /// A person who runs updates.
    Operator,
    /// A person who may do everything.
    Admin,
}

impl UserRole {
    /// The name in requests, listings and the database.
    pub fn name(self) -> &'static str {
        match self {
            UserRole::Device => "device",
            UserRole::Service => "service",
            UserRole::Operator => "operator",
            UserRole::Admin => "admin",
        }
    }
}

/// A password on its way in, or on its only way out. No log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserView {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// When it was added, in seconds since 1970.
    pub created: u64,
}

/// A user to add.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its name, in the form of a device id.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// Its password, at least 8 characters; made up where none is given.
    #[serde(default)]
    pub password: Option<Password>,
}

/// An added user.
#[derive(Clone, Debug, Serialize)]
pub struct AddedUser {
    /// The user.
    #[serde(flatten)]
    pub user: UserView,
    /// Its password, where it was made up; shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
}

/// What to change of a user; what is not named stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserPatch {
    /// What it may do from now on.
    pub role: Option<UserRole>,
    /// Its password from now on.
    pub password: Option<Password>,
    /// Makes up a password.
    pub new_password: bool,
}

/// What became of a change; as [`AddedUser`].
pub type ChangedUser = AddedUser;

/// A token to make for a user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewToken {
    /// What it is for, in the words of whoever makes it.
    pub label: String,
    /// After how many days it ends; `None`: it does not.
    #[serde(deserialize_with = "crate::whole::maybe")]
    pub expires_in_days: Option<u32>,
}

/// A user's token for the admin interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenView {
    /// Names it; 8 hex digits.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it ends; `None`: never.
    pub expires: Option<u64>,
    /// When it was last used, to the hour; `None`: not yet.
    pub last_used: Option<u64>,
}

/// A made token, which is shown only here. No log shows it.
#[derive(Clone, Serialize)]
pub struct AddedToken {
    /// What is known of it.
    #[serde(flatten)]
    pub view: TokenView,
    /// The token.
    pub token: String,
}

/// Devices and users to add, all or none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Import {
    /// Devices with tokens.
    pub devices: Vec<NewDevice>,
    /// Users of another broker.
    pub users: Vec<ImportedUser>,
}

/// A user of another broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedUser {
    /// Its name, in the form of a device id.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// Its password as mosquitto's password file has it: `$6$…`, `$7$…` or `$argon2id$…`.
    pub password_hash: Password,
}

/// What an import added.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Imported {
    /// The devices, in the order of the import.
    pub devices: Vec<ImportedDevice>,
    /// How many users.
    pub users: usize,
}

/// A device out of an import.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedDevice {
    /// Its id.
    pub id: String,
    /// Its token, where it was made up; shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Why one row of an import cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowProblem {
    /// `devices` or `users`.
    pub list: &'static str,
    /// Its place in that list; the first is 0.
    pub row: usize,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// Why nothing was imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// These rows cannot be added.
    #[error("{} rows cannot be added; nothing was changed", .0.len())]
    Rows(Vec<RowProblem>),
    /// It cannot be done, whatever the rows are.
    #[error(transparent)]
    Service(#[from] ServiceError),
}
