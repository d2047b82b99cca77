//! Commands about applications and their methods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Console, Done, Output, Refused, Who, line};
use crate::cli::grammar::Call;
use crate::cli::table::{Column, List, Shown};
use crate::hook::application::{Application, ApplicationError, Invalid, Method, Secret, Update};
use crate::users::{Role, UserError};

const COLUMNS: [Column; 4] = [
    ("NAME", "name", Shown::Plain),
    ("KEY", "key", Shown::Plain),
    ("URL", "url", Shown::Plain),
    ("OWNER", "owner", Shown::Plain),
];
const DETAILS: [Column; 5] = [
    ("REST USER", "restUsername", Shown::Plain),
    ("REST PASSWORD", "restPassword", Shown::Plain),
    ("CLASS", "mainClass", Shown::Plain),
    ("CALLBACK CLASS", "callbackClass", Shown::Plain),
    ("METHODS", "methods", Shown::Plain),
];

/// Every method there is.
pub(super) fn show_rest_methods() -> Output {
    let row = |method: Method| json!({"method": method, "called": method.is_called()});
    let columns = vec![("METHOD", "method", Shown::Plain), ("CALLED BY WEIR", "called", Shown::Plain)];
    Output::List(List { rows: Method::ALL.into_iter().map(row).collect(), columns })
}

impl Console {
    pub(super) fn show_apps(&self, who: &Who, call: &Call) -> Output {
        let book = self.applications.book();
        let rows = book.all().filter(|app| sees(who, app)).map(|app| shown(app)).collect();
        match call.has("detail") {
            true => Output::Details(List { rows, columns: [&COLUMNS[..], &DETAILS].concat() }),
            false => Output::List(List { rows, columns: COLUMNS.to_vec() }),
        }
    }

    pub(super) fn show_app_rest_methods(&self, who: &Who, call: &Call) -> Done {
        let app = self.with_key(who, call.argument(0).unwrap_or_default())?;
        let rows = app.methods.iter().map(|method| json!({"method": method})).collect();
        Ok(Output::List(List { rows, columns: vec![("METHOD", "method", Shown::Plain)] }))
    }

    pub(super) async fn add_app(&self, who: &Who, call: &Call) -> Done {
        let text = |at: usize| call.argument(at).unwrap_or_default().to_owned();
        let option = |long: &str| call.option(long).unwrap_or_default().to_owned();
        let app = Application {
            name: text(0),
            key: text(1),
            url: text(2),
            owner: self.owner(who, call)?.unwrap_or_else(|| who.name.clone()),
            rest_username: option("rest-user"),
            rest_password: Secret::new(option("rest-password")),
            main_class: option("main-class"),
            callback_class: option("callback-class"),
            ..Application::default()
        };
        let name = app.name.clone();
        self.applications.add(app).await?;
        line(format!("the application {name} is added; add app-rest-method enables its methods"))
    }

    pub(super) async fn update_app(&self, who: &Who, call: &Call) -> Done {
        let url = match (call.option("url"), call.argument(1)) {
            (Some(_), Some(_)) => return Ok(call.command.expected("the URL once, as -l or behind the name")?),
            (option, argument) => option.or(argument),
        };
        let option = |long: &str| call.option(long).map(str::to_owned);
        let update = Update {
            key: option("key"),
            url: url.map(str::to_owned),
            owner: self.owner(who, call)?,
            rest_username: option("rest-user"),
            rest_password: option("rest-password").map(Secret::new),
            main_class: option("main-class"),
            callback_class: option("callback-class"),
        };
        if update == Update::default() {
            return Ok(call.command.expected("something to change")?);
        }
        let name = self.named(who, call)?.name.clone();
        self.applications.update(&name, update).await?;
        line(format!("the application {name} is updated"))
    }

    pub(super) async fn remove_app(&self, who: &Who, call: &Call) -> Done {
        let name = self.named(who, call)?.name.clone();
        self.applications.remove(&name).await?;
        line(format!("the application {name} is removed"))
    }

    pub(super) async fn change_methods(&self, who: &Who, call: &Call, enable: bool) -> Done {
        let methods = match (call.has("all"), call.argument(1)) {
            (true, None) => Method::ALL.to_vec(),
            (false, Some(name)) => {
                let method: Method = name.parse().map_err(|wrong: Invalid| ApplicationError::from(wrong))?;
                vec![method]
            }
            _ => return Ok(call.command.expected("either a method or -a")?),
        };
        let key = self.with_key(who, call.argument(0).unwrap_or_default())?.key.clone();
        let (changed, word) = match enable {
            true => (self.applications.enable(&key, &methods).await?, "enabled"),
            false => (self.applications.disable(&key, &methods).await?, "disabled"),
        };
        let what = methods.first().filter(|_| methods.len() == 1).map_or("all methods".to_owned(), Method::to_string);
        match changed {
            0 => line(format!("{key}: {what} already {word}")),
            _ => line(format!("{key}: {what} {word}")),
        }
    }

    /// The application that a command names, where who types may see it.
    fn named(&self, who: &Who, call: &Call) -> Result<Arc<Application>, Refused> {
        let name = call.argument(0).unwrap_or_default();
        let app = self.applications.book().named(name).filter(|app| sees(who, app)).cloned();
        Ok(app.ok_or_else(|| ApplicationError::Unknown(name.to_owned()))?)
    }

    fn with_key(&self, who: &Who, key: &str) -> Result<Arc<Application>, Refused> {
        let app = self.applications.with_key(key).filter(|app| sees(who, app));
        Ok(app.ok_or_else(|| ApplicationError::UnknownKey(key.to_owned()))?)
    }

    /// The owner that a command names: a user there is. Only an admin gives to others.
    fn owner(&self, who: &Who, call: &Call) -> Result<Option<String>, Refused> {
        let Some(name) = call.option("owner") else { return Ok(None) };
        if who.role != Role::Admin && name != who.name {
            return Err(Refused::NotAllowed);
        }
        let user = self.users.find(name).ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        Ok(Some(user.name))
    }
}

/// An application belongs to one user; an admin sees all.
fn sees(who: &Who, app: &Application) -> bool {
    who.role == Role::Admin || app.owner == who.name
}

fn shown(app: &Application) -> Value {
    json!({
        "name": app.name,
        "key": app.key,
        "url": app.shown_url(),
        "owner": app.owner,
        "restUsername": app.rest_username,
        "restPassword": if app.rest_password.is_empty() { "" } else { "***" },
        "mainClass": app.main_class,
        "callbackClass": app.callback_class,
        "methods": app.methods,
    })
}
