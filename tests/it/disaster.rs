//! A server that is gone: the commands of the README bring its databases onto a new one, and touch none that is in use.

use tests::servers::{SUPERUSER, mariadb};

use crate::cut::Office;

/// The commands of the README under the heading of new servers, with other places in them.
fn commands_of_the_readme(places: &[(&str, String)]) -> String {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("**Databases onto a new server.**").unwrap();
    let block = rest.split("```").nth(1).unwrap();
    places.iter().fold(block.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "the README does not say {theirs}");
        text.replace(theirs, ours)
    })
}

#[test]
fn the_disaster_procedure_of_the_readme_works_and_databases_in_use_are_not_touched() {
    let office = Office::new();
    let account = office.world.path("").file_name().unwrap().to_str().unwrap().replace(['-', '.'], "_");
    mariadb().sql("mysql", &format!("CREATE USER {account}@localhost IDENTIFIED BY 'x'"));
    office.backup();
    let path = |name: &str| office.world.path(name).display().to_string();
    let (pg, my) = (&office.fresh_postgres, &office.fresh_mariadb);
    let script = commands_of_the_readme(&[
        ("/srv/restored", path("restored")),
        ("office-key.txt", path("keys/office.txt")),
        ("host=/run/postgresql", format!("host={},port={}", pg.socket.display(), pg.port)),
        ("/run/mysqld/mysqld.sock", my.socket.display().to_string()),
        ("mariadb --socket", "mariadb --no-defaults --socket".to_owned()),
    ]);
    let outcome = office.world.shell(&script).expect(0);
    for book in &office.books[2..] {
        assert!(outcome.stdout.contains(&format!("In its place: {}", book.database())), "{outcome}");
    }
    assert_eq!(my.sql("mysql", &format!("SELECT COUNT(*) FROM global_priv WHERE User = '{account}'")), "1");

    // Again: everything is there, so nothing is touched, unless it is asked for or goes by another name.
    let book = &office.books[2];
    pg.sql(book.database(), "CREATE TABLE new_work (id INTEGER)");
    my.sql(office.books[4].database(), "CREATE TABLE new_work (id INTEGER)");
    let [server, shop] = office.fresh();
    let restore = |into: &str, more: &[&str]| {
        let to = format!("again-{}", more.len());
        let arguments = ["restore", "latest", "--to", &to, "--overwrite", "--into", into];
        office.world.offsite([&arguments[..], more].concat())
    };
    for into in [&server, &shop] {
        let outcome = restore(into, &[]).expect(1);
        assert!(outcome.stderr.contains("holds something already"), "{outcome}");
    }
    assert_eq!(pg.sql(book.database(), "SELECT count(*) FROM new_work"), "0");
    assert_eq!(my.sql(office.books[4].database(), "SELECT COUNT(*) FROM new_work"), "0");
    restore(&format!("{server},database={},as=another", book.database()), &[]).expect(0);
    assert_eq!(pg.sql("another", "SELECT count(*) FROM account"), "100");
    for into in [&server, &shop] {
        restore(into, &["--replace-databases"]).expect(0);
    }
    let gone = pg.psql(SUPERUSER, book.database(), "SELECT count(*) FROM new_work").output().unwrap();
    assert!(!gone.status.success());

    // A dump that is not whole leaves nothing behind.
    let dump = office.world.path("restored/shop").join(format!("{}.sql", office.books[5].database()));
    let text = std::fs::read_to_string(&dump).unwrap();
    let folder = office.world.make_folder("torn");
    std::fs::copy(
        office.world.path("restored/shop").join(format!("{}.sql", office.books[4].database())),
        folder.join("one.sql"),
    )
    .unwrap();
    std::fs::write(folder.join("two.sql"), format!("{text}\nINSERT INTO nothing VALUES (1);\n")).unwrap();
    let server = agent::into::Server {
        host: Some(my.socket.display().to_string()),
        user: Some("root".to_owned()),
        ..agent::into::Server::default()
    };
    let request = agent::into::IntoRequest { folder: &folder, server: &server, only: None, replace: false, jobs: 2 };
    let error = agent::into::load(&request, &|_| ()).unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    assert_eq!(my.sql("mysql", "SHOW DATABASES LIKE 'one'"), "");
}
