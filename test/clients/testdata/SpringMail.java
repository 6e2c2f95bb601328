// Sends one mail with Spring's JavaMailSenderImpl, set up from the recipe in
// args[0] as Spring Boot's auto-configuration does.
import java.io.FileReader;
import java.util.Properties;
import org.springframework.mail.SimpleMailMessage;
import org.springframework.mail.javamail.JavaMailSenderImpl;

public class SpringMail {
    public static void main(String[] args) throws Exception {
        Properties recipe = new Properties();
        recipe.load(new FileReader(args[0]));
        JavaMailSenderImpl sender = new JavaMailSenderImpl();
        sender.setHost(recipe.getProperty("spring.mail.host"));
        sender.setPort(Integer.parseInt(recipe.getProperty("spring.mail.port")));
        sender.setDefaultEncoding("UTF-8");
        String prefix = "spring.mail.properties.";
        for (String name : recipe.stringPropertyNames()) {
            if (name.startsWith(prefix)) {
                sender.getJavaMailProperties().put(name.substring(prefix.length()), recipe.getProperty(name));
            }
        }
        SimpleMailMessage mail = new SimpleMailMessage();
        mail.setFrom("Shop <shop@sandbox.example>");
        mail.setTo("bob@example.net");
        mail.setBcc("eve@example.net");
        mail.setSubject("Grüße");
        mail.setText("Schöne Grüße!\n.\n.. dots\n");
        sender.send(mail);
    }
}
