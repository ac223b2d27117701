import ArgumentParser
import HSMImport
import HSMRemotes
import HSMSystem
import Logging

struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "import")
    @Argument var source: String
    @Argument var lower: PathArgument
}
extension ImportCommand {
    func run() throws {
        let s = try Importer(RemoteLocation(source), into: lower.path.bytes, log: Logger(label: "x")).run { _ in }
        print(s.counts, s.problems.prefix(5))
    }
}
