// Fetches the URL that is its argument, with Node's own fetch.
async function main() {
  const answer = await fetch(process.argv[2]);
  process.stdout.write(await answer.text());
}

main();
