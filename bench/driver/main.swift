import Foundation
import Glibc

// One workload of the comparison, run on a path and answered as one line of JSON: the same code for every subject.
//
//   driver open-read-close FILE COUNT          seconds for each open(2), read(2) of 4 KiB and close(2)
//   driver names DIRECTORY COUNT               seconds for each creation, stat(2) and unlink(2)
//   driver walk DIRECTORY                      seconds to list all and stat(2) each; entries
//   driver read-at FILE COUNT SIZE THREADS SEED   seconds for each pread(2) at random places: median, 99th percentile;
//                                              and for the open(2) before them, which may be where a file is filled
//   driver map-at FILE COUNT SEED              seconds for each load from a random page of a mapping
//   driver read-all DIRECTORY THREADS          seconds to read every file of the directory
//   driver hold DIRECTORY                      walks, says "ready", and keeps what the kernel knows until input ends

do {
    let arguments = Array(CommandLine.arguments.dropFirst())
    let result = try Workload.run(arguments)
    let text = try JSONSerialization.data(withJSONObject: result, options: [.sortedKeys])
    print(String(decoding: text, as: UTF8.self))
} catch {
    FileHandle.standardError.write(Data("driver: \(error)\n".utf8))
    exit(1)
}
