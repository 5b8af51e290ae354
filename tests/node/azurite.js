// Azurite's blob service on a free port until standard input ends. Its own words say where it listens.
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
process.argv.push("--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry");
require("azurite/dist/src/blob/main.js");
