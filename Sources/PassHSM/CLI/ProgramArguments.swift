import ArgumentParser
import HSMSystem

/// The program's arguments byte for byte: file names need not be UTF-8, which `CommandLine.arguments` repairs.
enum ProgramArguments {
    /// Every argument, the program's name first.
    static var raw: [BytePath] {
        (0..<Int(CommandLine.argc)).compactMap { index in
            CommandLine.unsafeArgv[index].map { BytePath(cString: $0) }
        }
    }

    /// The arguments for the parser: without the program's name, as ``ArgumentText`` codes them.
    static var encoded: [String] { raw.dropFirst().map { ArgumentText.encode($0.bytes) } }
}

/// A path on the command line, with every byte that was given.
struct PathArgument: ExpressibleByArgument {
    let path: BytePath

    init?(argument: String) {
        if argument.isEmpty { return nil }
        path = BytePath(ArgumentText.decode(argument))
    }

    var defaultValueDescription: String { path.description }
}
