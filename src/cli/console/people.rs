//! Commands about users.

use serde_json::json;

use super::{Console, Done, Output, Who, line};
use crate::cli::grammar::Call;
use crate::cli::table::{List, Shown};
use crate::users::Role;

impl Console {
    pub(super) fn show_users(&self) -> Output {
        let rows = self.users.all().into_iter().map(|user| json!({"name": user.name, "role": user.role})).collect();
        let columns = vec![("NAME", "name", Shown::Plain), ("ROLE", "role", Shown::Plain)];
        Output::List(List { rows, columns })
    }

    pub(super) async fn add_user(&self, who: &Who, call: &Call) -> Done {
        who.admin()?;
        let role = call.option("role").map_or(Ok(Role::User), str::parse)?;
        let name = call.argument(0).unwrap_or_default();
        self.users.add(name, call.argument(1).unwrap_or_default(), role).await?;
        line(format!("the user {name} is added, with the role {role}"))
    }

    pub(super) async fn remove_user(&self, who: &Who, call: &Call) -> Done {
        who.admin()?;
        let name = call.argument(0).unwrap_or_default();
        self.users.remove(name).await?;
        line(format!("the user {name} is removed"))
    }

    pub(super) async fn passwd(&self, who: &Who, call: &Call) -> Done {
        let name = call.argument(0).unwrap_or(&who.name);
        if name != who.name {
            who.admin()?;
        }
        self.users.set_password(name, call.argument(1).unwrap_or_default()).await?;
        line(format!("the password of {name} is changed"))
    }
}
