import ArgumentParser
import Glibc
import HSMControl
import HSMCore
import HSMDaemon
import HSMImport
import HSMRemotes
import HSMStore
import HSMSystem

/// `passhsm import`: builds the stubs of a source in a lower directory, or brings them up to date.
struct ImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import", abstract: "Build a lower directory from a source: names and metadata, no content.",
        discussion: """
            Run it again to continue an interrupted import, or to bring the directory up to date with its source. \
            Files with local changes stay as they are, and are reported.

            The exit status is 1 when a file could not be read, or is in conflict with local changes.
            """)

    @Argument(help: "The source of the files: \(RemoteKinds.forms).")
    var source: PathArgument

    @Argument(help: "The directory to build. It is created if it is missing.")
    var lower: PathArgument

    @Option(
        help: ArgumentHelp(
            "A list of the source's files (lines of JSON), to use instead of index pages.", valueName: "file|url"))
    var manifest: PathArgument?

    @Option(help: ArgumentHelp("Certificate authorities (PEM) to trust besides the system's.", valueName: "file"))
    var caFile: PathArgument?

    @Option(help: "The size of the parts of a new file that can be present or missing, from 4K to 1M (default: 64K).")
    var granule: GranuleArgument?

    @OptionGroup(title: "S3") var store: StoreOptions

    @OptionGroup(title: "Owners and modes of files from a web server or a bucket, recorded for later imports")
    var rights: RightsOptions

    @OptionGroup(title: "Settings to record for later mounts") var mount: MountSettingsArguments

    @Flag(help: "Remove names that the source no longer has, unless they have local changes.")
    var delete = false

    @Option(
        help: ArgumentHelp(
            "How many names --delete may remove; if more are gone, it removes none. In a small tree, five at least.",
            valueName: "number|percent%"))
    var maxDelete = DeleteLimit.usual

    @Flag(help: "Recreate names that were removed or renamed in the lower directory.")
    var restore = false

    @Flag(help: "Accept another source, or another file system of the source, than the recorded one.")
    var rebind = false

    @Flag(help: "Show no progress and no summary.")
    var quiet = false

    @OptionGroup var logging: LogArguments

    func validate() throws {
        do throws(LocationError) { _ = try location } catch { throw ValidationError(error.description) }
    }

    func run() throws {
        let recorded = try recorded
        let location = try location.completed(after: rebind ? nil : recorded?.source)
        var options = Importer.Options()
        options.authorities = try authorities(recorded)
        var access = RemoteAccess()
        access.authorities = options.authorities ?? ""
        access.manifest = manifest?.path
        access.readsMetadata = store.metadata
        options.mountSettings = mount.settings.recorded
        options.granuleSize = granule?.size
        options.rights = try rights.given(for: location)
        options.umask = OwnProcess.umask
        options.deleteGone = delete
        options.deleteLimit = maxDelete
        options.restores = restore
        options.rebind = rebind
        try MountCommand.expectNotNested(lower.path)
        let importer = Importer(
            location, try location.open(access), into: lower.path.bytes, options: options, log: logging.logger())
        let display = quiet ? nil : TreeDisplay(location.address.directory)
        let summary: ImportSummary
        do {
            defer { display?.finish() }
            do { summary = try importer.run { display?.show($0) } } catch let error as FillError {
                throw CommandError(error.cause)
            }
        }
        Self.report(summary.problems, of: summary.counts)
        if !quiet { Output.lines(Self.lines(summary.counts, from: location, into: lower.path)) }
        if let refusal = summary.refusal { throw CommandError(refusal) }
        if !summary.isClean { throw ExitCode.failure }
    }

    private var location: RemoteLocation {
        get throws(LocationError) {
            var location = try RemoteLocation(source.path)
            try location.set(store.given)
            return location
        }
    }

    /// The configuration that an earlier import has recorded; nil when there was none.
    private var recorded: StoreConfiguration? {
        get throws { try Store.recordedConfiguration(lower.path.cString) }
    }

    /// The path by which later mounts find the file too. Without the option, the path from the earlier import.
    private func authorities(_ recorded: StoreConfiguration?) throws -> String? {
        guard let path = caFile?.path else { return recorded?.authorities }
        do throws(Errno) { return String(decoding: try path.real().bytes, as: UTF8.self) } catch {
            throw CommandError("\(path): \(error.text)")
        }
    }

    private static let shownProblems = 20

    private static func report(_ problems: [ImportProblem], of counts: ImportCounts) {
        for problem in problems.prefix(shownProblems) { PassHSMCommand.printError("\(problem)") }
        let rest = counts.conflicts + counts.unreadable + counts.skipped - min(problems.count, shownProblems)
        if rest > 0 { PassHSMCommand.printError("and \(rest) more like these") }
    }

    private static func lines(_ counts: ImportCounts, from source: RemoteLocation, into lower: BytePath) -> [String] {
        let problems = [
            (counts.conflicts, "in conflict with local changes"), (counts.unreadable, "unreadable"),
            (counts.skipped, "skipped"),
            (counts.removed, "removed or renamed here and left so (--restore recreates them)"),
        ].filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
        let first = """
            \(lower): \(counts.new) new, \(counts.changed) changed, \(counts.unchanged) unchanged, \(counts.gone) gone
            """
        let second = """
            \(source): \(TextTable.count(counts.files, "file")) of \(TextTable.size(counts.bytes)), \
            \(TextTable.count(counts.directories, "directory", "directories")), \(TextTable.count(counts.links, "link"))
            """
        return [first, second] + (problems.isEmpty ? [] : [problems.joined(separator: ", ")])
    }
}

extension DeleteLimit: ExpressibleByArgument {
    package init?(argument: String) { self.init(argument) }

    package var defaultValueDescription: String { "10%" }
}
