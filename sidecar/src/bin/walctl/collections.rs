//! `walctl truncate`, `flush`, `delete` and `collections`.

use clap::Args;
use walstorage_sidecar::proto::{
    Collection, DeleteCollectionRequest, FlushRequest, ListCollectionsReply, ListCollectionsRequest, TruncateRequest,
};

use crate::Global;
use crate::connect::{Client, connect};
use crate::failure::Failure;
use crate::output::{self, Output, bytes, plain};

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The collection
    collection: String,
}

#[derive(Args, Debug)]
pub(crate) struct TruncateArgs {
    /// The collection
    collection: String,
    /// The last LSN to forget
    up_to: u64,
}

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// The collection
    collection: String,
    /// Yes, really: its entries are gone for good
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn truncate(global: &Global, args: TruncateArgs) -> Result<(), Failure> {
    let TruncateArgs { collection, up_to } = args;
    let mut client = connect(&global.socket).await?;
    let reply = client.truncate(TruncateRequest { collection, up_to }).await?.into_inner();
    match global.output {
        Output::Json => output::json(&reply),
        Output::Table | Output::Raw => output::line(&format!("truncated to LSN {}", reply.truncated_to)),
    }
}

pub(crate) async fn flush(global: &Global, args: Named) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let reply = client.flush(FlushRequest { collection: args.collection }).await?.into_inner();
    match global.output {
        Output::Json => output::json(&reply),
        Output::Table | Output::Raw => output::line(&format!("flushed to LSN {}", reply.flushed_to)),
    }
}

pub(crate) async fn delete(global: &Global, args: DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { collection, yes } = args;
    if !yes {
        return Err(Failure::usage(format!("this deletes all entries of {collection:?} for good: say so with --yes")));
    }
    let mut client = connect(&global.socket).await?;
    let name = collection.clone();
    let reply = client.delete_collection(DeleteCollectionRequest { collection }).await?.into_inner();
    match global.output {
        Output::Json => output::json(&reply),
        Output::Table | Output::Raw => {
            output::line(&format!("deleted {} (incarnation {})", plain(&name), reply.incarnation))
        }
    }
}

/// All collections, page by page.
pub(crate) async fn all(client: &mut Client) -> Result<Vec<Collection>, Failure> {
    let mut all: Vec<Collection> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListCollectionsRequest { page_size: 0, page_token };
        let page = client.list_collections(request).await?.into_inner();
        all.extend(page.collections);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

pub(crate) async fn list(global: &Global) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let all = all(&mut client).await?;
    if global.output == Output::Json {
        return output::json(&ListCollectionsReply { collections: all, next_page_token: String::new() });
    }
    let mut table =
        output::table(&["COLLECTION", ">FIRST", ">DURABLE HEAD", ">ASSIGNED HEAD", ">BYTES", ">SEGMENTS", "DIRECTORY"]);
    for c in all {
        table.add_row([
            plain(&c.name).into_owned(),
            c.first_lsn.to_string(),
            c.durable_head.to_string(),
            c.assigned_head.to_string(),
            bytes(c.bytes),
            c.segments.to_string(),
            c.directory,
        ]);
    }
    output::print_table(&table)
}
