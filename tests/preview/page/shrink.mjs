// A picture with 128 colours: dashboards have no more, and the file is a third.
import { readFileSync, writeFileSync } from "node:fs";
import UPNG from "upng-js";

for (const path of process.argv.slice(2)) {
  const picture = UPNG.decode(readFileSync(path));
  writeFileSync(path, Buffer.from(UPNG.encode(UPNG.toRGBA8(picture), picture.width, picture.height, 128)));
}
