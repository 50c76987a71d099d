import java.io.InputStream;
import java.net.URL;

/** Fetches the URL that is its argument, with the class library. */
public class Fetch {
    public static void main(String[] arguments) throws Exception {
        try (InputStream answer = new URL(arguments[0]).openStream()) {
            answer.transferTo(System.out);
        }
    }
}
